# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Detectors: from images to anomaly maps, in the units that MEBin's range was fitted in.

Exported models run here without torch. Those of Lightning are in ``anomalib_ncd.data.detector_maps``.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from anomalib_ncd.deploy.packing.artefact import Artefact, ArtefactError
from anomalib_ncd.deploy.runtimes import Network, OnnxNetwork, OpenVinoNetwork, load_network
from anomalib_ncd.regions.views import resize_antialiased


class Detector(Protocol):
    """Finds anomalies in images.

    One with an attribute ``sha256`` tells by it whether results were made with this very detector.
    """

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """One anomaly map ``(h, w)``, integer or float, for each image ``(H, W, 3)`` uint8 RGB, in order.

        ``paths`` are the images' files; ``None`` for arrays.
        """
        ...


MapFunction: TypeAlias = Callable[[np.ndarray], np.ndarray]


class FunctionDetector:
    """Any function from one image ``(H, W, 3)`` uint8 RGB to its map ``(h, w)``."""

    def __init__(self, function: MapFunction) -> None:
        self.function = function

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """Call the function for each image."""
        del paths
        return [as_map(self.function(image)) for image in images]


class NetworkDetector:
    """A detector exported by anomalib, in ONNX Runtime or OpenVINO; ``ArtefactError`` if the network is none.

    Args:
        network: Network with one input and the output ``anomaly_map``.
        input_size: Height and width that images are brought to beforehand, without aliasing, as the detector's own
            ``Resize`` did in training; an exported ``Resize`` aliases. ``None``: the size that the network
            is fixed to, or the image's own.
        sha256: Digest of the network's files.
    """

    def __init__(self, network: Network, input_size: tuple[int, int] | None = None, sha256: str = "") -> None:
        if len(network.input_shapes) != 1 or "anomaly_map" not in network.output_names:
            found = f"{sorted(network.input_shapes)} to {network.output_names}"
            msg = f"A detector leads from one image to `anomaly_map`, got {found}; export an anomalib detector."
            raise ArtefactError(msg)
        self.network = network
        self.sha256 = f"{sha256} {input_size}"
        [(self._input, shape)] = network.input_shapes.items()
        self._batch_size = shape[0]
        fixed = (shape[2], shape[3]) if len(shape) == 4 and min(shape[2:]) > 0 else None
        self.input_size = input_size or fixed

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """Run images of one size together, others one by one."""
        del paths
        inputs = []
        for pixels in images:
            size_hw = self.input_size or (pixels.shape[0], pixels.shape[1])
            inputs.append(np.ascontiguousarray((resize_antialiased(pixels, size_hw) / 255).transpose(2, 0, 1)))
        alike = len({one.shape for one in inputs}) == 1
        step = (len(inputs) if self._batch_size < 0 else self._batch_size) if alike else 1
        found: list[np.ndarray] = []
        for first in range(0, len(inputs), step):
            part = inputs[first : first + step]
            # anomalib exports Patchcore bound to two images; a copy takes the place of one that isn't there.
            filled = part + part[-1:] * (self._batch_size - len(part))
            maps = self.network({self._input: np.stack(filled)})["anomaly_map"]
            found += [as_map(one) for one in maps[: len(part)]]
        return found


def load_artefact_detector(artefact: Artefact, num_threads: int | None = None) -> Detector | None:
    """Load the detector of an artefact; ``None`` where it has none."""
    entry = artefact.manifest.detector
    if entry is None:
        return None
    network = load_network(entry.runtime, artefact.contents_of(entry), num_threads)
    size = entry.settings.get("input_size")
    return NetworkDetector(network, None if size is None else (size[0], size[1]))


def load_detector_file(
    path: str | Path, *, input_size: tuple[int, int] | None = None, num_threads: int | None = None
) -> Detector:
    """Load a detector that anomalib exported, ``.onnx`` or ``.xml``; see :class:`NetworkDetector` for its input size.

    ``FileNotFoundError`` if there is no such file, ``ValueError`` if it has another suffix.
    """
    path = Path(path)
    files = files_of_detector(path)
    network: Network
    if files == [path]:
        network = OnnxNetwork(path, num_threads)  # by its path, as weights may lie next to the file
    else:
        network = OpenVinoNetwork([file.read_bytes() for file in files], num_threads)
    weights = Path(f"{path}.data")
    digest = file_digest(*files, *([weights] if weights.is_file() else []))
    return NetworkDetector(network, input_size, digest)


def files_of_detector(path: Path) -> list[Path]:
    """Files of an exported detector: an ``.onnx`` file, or an ``.xml`` and a ``.bin`` file; see the loader's errors."""
    if path.suffix.lower() not in {".onnx", ".xml"}:
        wanted = f"The detector {path} must be an .onnx or .xml file; a .pt file runs code when it is loaded"
        msg = f"{wanted}. Export it to ONNX or OpenVINO, or give its class and checkpoint."
        raise ValueError(msg)
    files = [path] if path.suffix.lower() == ".onnx" else [path, path.with_suffix(".bin")]
    for file in files:
        if not file.is_file():
            msg = f"There is no detector {file}; give the .onnx file, or .xml next to its .bin, that anomalib exported."
            raise FileNotFoundError(msg)
    return files


def file_digest(*files: Path) -> str:
    """SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def as_detector(detector: Detector | MapFunction) -> Detector:
    """Take a detector as it is, or a function as one."""
    if callable(getattr(detector, "detect", None)):
        return detector  # type: ignore[return-value]
    if callable(detector):
        return FunctionDetector(detector)
    msg = f"`detector` must be a Detector or a function from an image to its map, got {type(detector).__name__}."
    raise TypeError(msg)


def as_map(values: Any) -> np.ndarray:
    """Turn an array ``(h, w)`` with any leading axes of length one into a map."""
    array = np.asarray(values)
    if array.ndim < 2 or any(side != 1 for side in array.shape[:-2]):
        msg = f"An anomaly map must have shape (h, w), got {array.shape}; return one map an image."
        raise ValueError(msg)
    return array.reshape(array.shape[-2:])
