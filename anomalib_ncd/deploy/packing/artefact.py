# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""An artefact on disk: a folder or a zip of a manifest and network files, checked before anything in it is used.

Files, all of them data, are read once, compared with their digests and handed to the runtimes from memory. Digests tell
damage and tampering with single files; for an artefact forged as a whole, compare :attr:`Artefact.sha256`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.reading.maps import MAP_KINDS
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.writing import OutputError, whole_file, write_file

FORMAT = "anomalib-ncd-classifier"
FORMAT_VERSION = 4
MANIFEST_NAME = "manifest.json"
NUM_FILES = {"onnx": 1, "openvino": 2, "torch": 1}
MAX_SIDE_PX = 4096
MAX_CLASSES = 10_000
MAX_NAME_CHARS = 1000
MAX_SIMILARITIES = 1000
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

MAX_MANIFEST_BYTES = 1 << 20


class ArtefactError(ValueError):
    """An artefact that can't be trusted or used; the message says why."""


@dataclass(frozen=True)
class Rejection:
    """When a region counts as unknown; new images are compared with ``similarities`` to see drift."""

    threshold: float  # of its cosine to the nearest region of the run
    false_reject_rate: float  # share of new regions of known classes below it, above 0 and below 1
    similarities: tuple[float, ...]  # ascending, of the largest region of each image of the run to other images'

    def __post_init__(self) -> None:
        _check_number("rejection.threshold", self.threshold)
        _check_number("rejection.false_reject_rate", self.false_reject_rate, 0, 1)
        count = len(self.similarities)
        _require(0 < count <= MAX_SIMILARITIES, "rejection.similarities", count, f"1 to {MAX_SIMILARITIES:,} numbers")
        for similarity in self.similarities:
            _check_number("rejection.similarities", similarity)


@dataclass(frozen=True)
class NetworkEntry:
    """A network in an artefact; ``settings`` are plain data, which whoever builds or feeds the network checks."""

    runtime: Literal["onnx", "openvino", "torch"]
    files: tuple[str, ...]  # names, the model first; none while it is not packed yet
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.runtime in NUM_FILES, "runtime", self.runtime, f"one of {sorted(NUM_FILES)}")
        count = NUM_FILES[self.runtime]
        _require(len(self.files) in {0, count}, "files", self.files, f"{count} for {self.runtime!r}")
        for name in self.files:
            is_plain = isinstance(name, str) and _FILE_NAME.fullmatch(name) and name != MANIFEST_NAME
            _require(is_plain, "files", name, "a plain name inside of the artefact")
        _require(isinstance(self.settings, dict), "settings", self.settings, "a dictionary")


@dataclass(frozen=True)
class FileEntry:
    """A file of an artefact."""

    sha256: str
    num_bytes: int

    def __post_init__(self) -> None:
        is_digest = isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)
        _require(is_digest, "sha256", self.sha256, "64 hexadecimal digits")
        _check_integer("num_bytes", self.num_bytes, 0, 1 << 40)


@dataclass(frozen=True)
class Manifest:
    """All that a prediction needs besides the networks; ``ArtefactError`` if a value is wrong."""

    class_names: tuple[str, ...]  # of each slot; several may share one
    normal_slot: int | None  # of *normal*, whatever its name
    score_range: tuple[float, float]  # that MEBin was fitted to
    regions: RegionSettings  # how images are read and regions are cut
    image_size: int  # side of a region's view in pixels
    encoder: NetworkEntry  # classifies regions; mean, standard deviation and head are part of it
    map_kind: str | None = None  # what the maps of the run hold, see `map_kind`
    detector: NetworkEntry | None = None  # None where maps come from elsewhere
    merging_temperature: float | None = None  # None: an eighth of the root of the image's area
    rejection: Rejection | None = None  # None: no region is unknown
    files: dict[str, FileEntry] = field(default_factory=dict)  # all but the manifest
    origin: dict[str, Any] = field(default_factory=dict)  # informs people, decides nothing

    def __post_init__(self) -> None:
        count = len(self.class_names)
        _require(1 <= count <= MAX_CLASSES, "class_names", f"{count} names", f"1 to {MAX_CLASSES:,} names")
        for name in self.class_names:
            is_short = isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS
            _require(is_short, "class_names", name, f"text of 1 to {MAX_NAME_CHARS:,} characters")
        for edge in self.score_range:
            _check_number("score_range", edge)
        _require(self.score_range[0] <= self.score_range[1], "score_range", self.score_range, "ascending")
        _check_integer("image_size", self.image_size, 16, MAX_SIDE_PX)
        if self.merging_temperature is not None:
            _check_number("merging_temperature", self.merging_temperature, 0)
        if self.normal_slot is not None:
            _check_integer("normal_slot", self.normal_slot, 0, len(self.class_names) - 1)
        _require(self.map_kind in (None, *MAP_KINDS), "map_kind", self.map_kind, f"one of {MAP_KINDS} or null")
        _require(isinstance(self.origin, dict), "origin", self.origin, "a dictionary")
        if self.detector is not None:
            self._check_detector(self.detector)

    def _check_detector(self, detector: NetworkEntry) -> None:
        """Check the settings of the detector, which decide about memory before it runs."""
        is_plain = detector.runtime != "torch" and not set(detector.settings) - {"input_size"}
        _require(is_plain, "detector", detector, "of runtime 'onnx' or 'openvino', with `input_size` alone")
        size = detector.settings.get("input_size", (1, 1))
        _require(isinstance(size, list | tuple) and len(size) == 2, "detector.input_size", size, "height and width")
        for side in size:
            _check_integer("detector.input_size", side, 1, MAX_SIDE_PX)

    @property
    def region_merging(self) -> RegionMerging:
        """What the classes mean, and how regions decide about their image."""
        return RegionMerging(self.class_names, self.normal_slot, self.merging_temperature)

    @property
    def networks(self) -> tuple[NetworkEntry, ...]:
        """Encoder and, where there is one, detector."""
        return (self.encoder,) if self.detector is None else (self.encoder, self.detector)

    def to_json(self) -> str:
        """Text of ``manifest.json``."""
        return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"

    @property
    def sha256(self) -> str:
        """Digest of the manifest, and so of everything in the artefact: the files' digests are part of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read and check the text of ``manifest.json``; ``ArtefactError`` says what is wrong with it."""
        values = _parsed(text)
        try:
            manifest = _built(values)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, ArtefactError):
                raise
            msg = f"The manifest lacks or misstates something ({type(error).__name__}: {error}); build it again."
            raise ArtefactError(msg) from error
        used = [name for network in manifest.networks for name in network.files]
        is_whole = sorted(used) == sorted(manifest.files) and all(network.files for network in manifest.networks)
        _require(is_whole, "files", sorted(manifest.files), f"those of its networks and no others, {sorted(used)}")
        return manifest


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
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
    """A manifest of plain data; every field must be there."""
    missing = {one.name for one in fields(Manifest)} - set(values)
    _require(not missing, "manifest", f"none of {sorted(missing)}", "complete")
    detector, rejection = values.pop("detector"), values.pop("rejection")
    low, high = values.pop("score_range")
    similarities = () if rejection is None else _tuple("rejection.similarities", rejection["similarities"])
    return Manifest(
        class_names=_tuple("class_names", values.pop("class_names")),
        score_range=(low, high),
        regions=RegionSettings.from_dict(values.pop("regions")),
        encoder=_network(values.pop("encoder")),
        detector=None if detector is None else _network(detector),
        rejection=None if rejection is None else Rejection(**rejection | {"similarities": similarities}),
        files={name: FileEntry(**entry) for name, entry in values.pop("files").items()},
        **values,
    )


def _network(values: Mapping[str, Any]) -> NetworkEntry:
    return NetworkEntry(values["runtime"], _tuple("files", values["files"]), values["settings"])


def _tuple(name: str, values: Any) -> tuple[Any, ...]:
    _require(isinstance(values, list), name, values, "a list")
    return tuple(values)


def _check_number(name: str, value: Any, above: float = -math.inf, below: float = math.inf) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_fine = is_number and math.isfinite(value) and above < value < below
    _require(is_fine, name, value, f"a finite number above {above} and below {below}")


def _check_integer(name: str, value: Any, lowest: int, highest: int) -> None:
    is_fine = isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
    _require(is_fine, name, value, f"an integer from {lowest} to {highest}")


def _require(is_fine: object, name: str, value: object, wanted: str) -> None:
    if not is_fine:
        msg = f"`{name}` of the artefact must be {wanted}, got {str(value)[:200]!r}; it is refused. Build it again."
        raise ArtefactError(msg)


class Artefact:
    """A checked artefact in memory: its manifest, and the bytes of every file that it names."""

    def __init__(self, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
        self.manifest = manifest
        self._contents = contents

    @property
    def sha256(self) -> str:
        """Digest of the whole artefact."""
        return self.manifest.sha256

    def contents_of(self, network: NetworkEntry) -> list[bytes]:
        """Bytes of the files of a network, the model first."""
        return [self._contents[name] for name in network.files]

    @classmethod
    def load(cls, path: str | Path, sha256: str | None = None) -> Artefact:
        """Read and check a folder or zip file, which must have the digest ``sha256`` unless that is ``None``.

        ``FileNotFoundError`` if nothing is there, ``ArtefactError`` if it is no artefact, or not as it was built.
        """
        path = Path(path)
        if path.is_dir():
            return cls._checked(path, sha256)
        if not path.is_file():
            msg = f"There is no artefact {path}; give the folder or zip that `anomalib-ncd pack` wrote."
            raise FileNotFoundError(msg)
        try:
            with zipfile.ZipFile(path) as archive:
                return cls._checked(zipfile.Path(archive), sha256)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            msg = f"{path} is no readable zip ({error}); copy or build it again."
            raise ArtefactError(msg) from error

    @classmethod
    def create(cls, manifest: Manifest, contents: Mapping[str, bytes]) -> Artefact:
        """Make an artefact; the manifest gets the digests of the files."""
        entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in contents.items()}
        return cls(replace(manifest, files=entries), contents)

    def save(self, path: str | Path) -> Path:
        """Write the artefact, as a whole or not at all: a zip where the path ends in ``.zip``, else a folder.

        ``FileExistsError`` if there is something at the path, ``OutputError`` if it can't be written.
        """
        path = Path(path)
        if path.exists():
            msg = f"{path} exists already; choose another place for the artefact or delete it."
            raise FileExistsError(msg)
        files = {MANIFEST_NAME: self.manifest.to_json().encode(), **self._contents}
        if path.suffix.lower() == ".zip":
            with whole_file(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
            return path
        folder = path.with_name(f".{os.getpid()}.unfinished")
        try:
            folder.mkdir(parents=True)
            for name, data in files.items():
                write_file(folder / name, data)
            folder.rename(path)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise error if isinstance(error, OutputError) else OutputError.of(path, error) from error
        return path

    @classmethod
    def _checked(cls, source: Path | zipfile.Path, sha256: str | None) -> Artefact:
        manifest = Manifest.from_json(_read(source / MANIFEST_NAME, MAX_MANIFEST_BYTES))
        if sha256 is not None and manifest.sha256 != sha256.lower():
            msg = f"The artefact's digest is {manifest.sha256}, not {sha256}: it is another one or was tampered with."
            raise ArtefactError(msg)
        contents = {}
        for name, entry in manifest.files.items():
            data = _read(source / name, entry.num_bytes)
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                msg = f"The file {name!r} of the artefact is not the one that was packed (its SHA-256 differs)."
                raise ArtefactError(msg)
            contents[name] = data
        return cls(manifest, contents)


def _read(file: Path | zipfile.Path, max_bytes: int) -> bytes:
    """Bytes of a file at the top of a folder or a zip, of which nothing is extracted to disk."""
    if isinstance(file, Path) and file.is_symlink():
        msg = f"The file {file.name!r} of the artefact is a link, which could lead anywhere; it is refused."
        raise ArtefactError(msg)
    if not file.is_file():
        msg = f"The artefact {file.parent} lacks its file {file.name!r}; copy or build it again."
        raise ArtefactError(msg)
    with file.open("rb") as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        msg = f"The file {file.name!r} of the artefact has {len(data)} bytes, more than the {max_bytes} it may have."
        raise ArtefactError(msg)
    return data
