# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The manifest of an artefact: all that a prediction needs beside the networks, as plain data."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from anomalib_ncd.regions.settings import RegionSettings

FORMAT = "anomalib-ncd-classifier"
FORMAT_VERSION = 3
MANIFEST_NAME = "manifest.json"
NORMAL_NAME = "normal"
RUNTIMES = ("onnx", "openvino", "torch")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class ArtefactError(ValueError):
    """An artefact that can't be trusted or used; the message says why."""


@dataclass(frozen=True)
class Rejection:
    """When a region counts as unknown.

    Attributes:
        threshold: A region is unknown where its cosine to the nearest region of the run is below this.
        false_reject_rate: Share of new regions of known classes that fall below.
    """

    threshold: float
    false_reject_rate: float


@dataclass(frozen=True)
class NetworkEntry:
    """A network in an artefact.

    Attributes:
        runtime: ``"onnx"``, ``"openvino"`` or ``"torch"``.
        files: Names of its files, the model first.
        settings: What else is needed to build or feed it.
    """

    runtime: Literal["onnx", "openvino", "torch"]
    files: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileEntry:
    """A file of an artefact.

    Attributes:
        sha256: Its digest.
        num_bytes: Its size.
    """

    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class Manifest:
    """All that a prediction needs beside the networks.

    Attributes:
        class_names: Name of each slot; several slots may share one.
        score_range: Score range that MEBin was fitted to.
        regions: How images are read and regions are cut.
        image_size: Side of a region's view in pixels.
        encoder: The network that classifies regions; mean, standard deviation and head are part of it.
        detector: The detector that goes with it; ``None`` where maps come from elsewhere.
        merging_temperature: T of region merging; ``None`` for an eighth of the root of the image's area.
        rejection: When a region is unknown; ``None`` for never.
        image_threshold: Detector score above which an image is anomalous; ``None`` for the detector's own label.
        files: Every file of the artefact beside the manifest.
        origin: Where it comes from; informs people, decides nothing.
    """

    class_names: tuple[str, ...]
    score_range: tuple[float, float]
    regions: RegionSettings
    image_size: int
    encoder: NetworkEntry
    detector: NetworkEntry | None = None
    merging_temperature: float | None = None
    rejection: Rejection | None = None
    image_threshold: float | None = None
    files: dict[str, FileEntry] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Text of ``manifest.json``."""
        return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"

    @property
    def sha256(self) -> str:
        """Digest of the manifest, and so of everything in the artefact: the files' digests are part of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read and check a manifest.

        Args:
            text: Text of ``manifest.json``.

        Returns:
            The manifest.

        Raises:
            ArtefactError: If it is no manifest, of another version, lacks something, or names files elsewhere.
        """
        values = _parsed(text)
        try:
            manifest = _built(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"The manifest lacks or misstates something ({type(error).__name__}: {error}); build it again."
            raise ArtefactError(msg) from error
        _check(manifest)
        return manifest


def _parsed(text: str | bytes) -> dict[str, Any]:
    """A manifest of this format and version as plain data."""
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{MANIFEST_NAME} is not JSON ({error}); build the artefact again."
        raise ArtefactError(msg) from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        msg = f"{MANIFEST_NAME} does not describe an artefact of anomalib_ncd; give the folder that `pack` wrote."
        raise ArtefactError(msg)
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        msg = f"The artefact has format version {version}, this package reads {FORMAT_VERSION}; build it again."
        raise ArtefactError(msg)
    return values


def _built(values: dict[str, Any]) -> Manifest:
    """A manifest of plain data."""
    detector, rejection = values.pop("detector"), values.pop("rejection")
    low, high = values.pop("score_range")
    return Manifest(
        class_names=tuple(str(name) for name in values.pop("class_names")),
        score_range=(float(low), float(high)),
        regions=RegionSettings.from_dict(values.pop("regions")),
        encoder=_network(values.pop("encoder")),
        detector=None if detector is None else _network(detector),
        rejection=None if rejection is None else _rejection(rejection),
        files={name: FileEntry(**entry) for name, entry in values.pop("files").items()},
        **values,
    )


def _network(values: dict[str, Any]) -> NetworkEntry:
    return NetworkEntry(values["runtime"], tuple(values["files"]), dict(values["settings"]))


def _rejection(values: dict[str, Any]) -> Rejection:
    """A rejection of plain data."""
    rejection = Rejection(float(values["threshold"]), float(values["false_reject_rate"]))
    if not math.isfinite(rejection.threshold) or not 0 < rejection.false_reject_rate < 1:
        msg = f"{rejection}"
        raise ValueError(msg)
    return rejection


def _check(manifest: Manifest) -> None:
    """Refuse what could lead out of the artefact or makes no sense."""
    low, high = manifest.score_range
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        msg = f"The score range {manifest.score_range} of the artefact is not finite and ascending; build it again."
        raise ArtefactError(msg)
    if not manifest.class_names:
        msg = "The artefact names no class; build it from a trained run."
        raise ArtefactError(msg)
    networks = [manifest.encoder] + ([manifest.detector] if manifest.detector else [])
    for name in [*manifest.files, *(name for network in networks for name in network.files)]:
        if not _FILE_NAME.fullmatch(name):
            msg = f"The artefact names the file {name!r}, which is no plain name inside of it; it is refused."
            raise ArtefactError(msg)
        if name not in manifest.files:
            msg = f"The artefact has no digest for its file {name!r}; it is refused."
            raise ArtefactError(msg)
    for network in networks:
        if network.runtime not in RUNTIMES:
            msg = f"The artefact wants the runtime {network.runtime!r}; this package knows {RUNTIMES}."
            raise ArtefactError(msg)
