# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The detector of an artefact: exported with its own scores, and compared with the maps of the run."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from anomalib.data import InferenceBatch
from anomalib.models import AnomalibModule

from anomalib_ncd.data.detector_maps import resize_of
from anomalib_ncd.deploy.detectors import Detector, files_of_detector
from anomalib_ncd.deploy.packing.artefact import NetworkEntry
from anomalib_ncd.models.export import without_inplace, write_onnx
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.maps import read_anomaly_map
from anomalib_ncd.regions.views import resize_antialiased

MAX_DIFFERENCE = 0.1
NUM_IMAGES = 4


def check_detector(
    detector: Detector,
    images: Sequence[Path],
    map_paths: Sequence[Path],
    score_range: tuple[float, float],
    bit_depth: int = 16,
) -> float:
    """Compare a detector's maps of some images with those that MEBin's range was fitted to.

    An exported detector may normalise and clip its maps; the range would then mean nothing. Returns the median over
    the images of the mean difference, as a share of the score range; ``ValueError`` if it is above 0.1.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(NUM_IMAGES, len(images))).astype(int))
    width = max(score_range[1] - score_range[0], np.finfo(np.float32).tiny)
    differences = []
    for index in chosen:
        [anomaly_map] = detector.detect([read_image(images[index], bit_depth)], [images[index]])
        wanted = read_anomaly_map(map_paths[index]).astype(np.float32)
        found = resize_antialiased(anomaly_map, (wanted.shape[0], wanted.shape[1]))
        differences.append(float(np.abs(found - wanted).mean() / width))
    difference = float(np.median(differences))
    if not difference <= MAX_DIFFERENCE:
        what = f"The detector's maps differ from the run's by {difference:.2g} of their range: they are in other units"
        way_out = "Give its checkpoint, or run `discover` on maps of this very detector"
        msg = f"{what}. Was it exported with a post-processor that normalises? {way_out}."
        raise ValueError(msg)
    return difference


def pack_detector(
    detector: AnomalibModule | str | Path, input_size: tuple[int, int] | None, runtime: str
) -> tuple[NetworkEntry, dict[str, bytes]]:
    """A detector as entry and files."""
    if isinstance(detector, AnomalibModule):
        contents, size = export_raw_detector(detector)
        settings = {"input_size": list(size)}
        if runtime != "openvino":
            return NetworkEntry("onnx", ("detector.onnx",), settings), {"detector.onnx": contents}
        files = _as_openvino(contents)
        return NetworkEntry("openvino", tuple(files), settings), files
    found = files_of_detector(Path(detector))
    weights = Path(f"{detector}.data")
    if weights.is_file():
        msg = f"{found[0]} has its weights in {weights.name}; export it with `onnx_kwargs={{'external_data': False}}`."
        raise ValueError(msg)
    files = {f"detector{file.suffix.lower()}": file.read_bytes() for file in found}
    settings = {} if input_size is None else {"input_size": list(input_size)}
    return NetworkEntry("onnx" if len(found) == 1 else "openvino", tuple(files), settings), files


def _as_openvino(contents: bytes) -> dict[str, bytes]:
    import openvino  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="anomalib_ncd_") as folder:
        source, target = Path(folder) / "detector.onnx", Path(folder) / "detector.xml"
        source.write_bytes(contents)
        openvino.save_model(openvino.convert_model(source), target, compress_to_fp16=False)
        return {file.name: file.read_bytes() for file in (target, target.with_suffix(".bin"))}


class _RawDetector(torch.nn.Module):
    """Pre-processor and network, without post-processor."""

    def __init__(self, detector: AnomalibModule) -> None:
        super().__init__()
        self.pre_processor = detector.pre_processor
        self.network = detector.model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Own maps of images ``(B, 3, H, W)`` in [0, 1]."""
        found: InferenceBatch = self.network(image if self.pre_processor is None else self.pre_processor(image))
        if found.anomaly_map is None:
            msg = "The detector yields no anomaly maps, only scores; choose one that localises."
            raise ValueError(msg)
        return found.anomaly_map


def export_raw_detector(detector: AnomalibModule) -> tuple[bytes, tuple[int, int]]:
    """Export a detector with its own scores, neither normalised nor clipped, as MEBin's range needs them.

    Returns the ONNX file, and the height and width that images must have; ``ValueError`` if its input size is not known
    or it has no anomaly maps.
    """
    resize = resize_of(detector)
    sides = [] if resize is None else [int(side) for side in resize.size or ()]
    if len(sides) != 2:  # one side depends on the image
        msg = f"{type(detector).__name__} does not say which input size it has; export it yourself and give the file."
        raise ValueError(msg)
    size = sides[0], sides[1]
    raw, example = without_inplace(_RawDetector(detector.cpu()).eval()), torch.rand(1, 3, *size)
    with tempfile.TemporaryDirectory(prefix="anomalib_ncd_") as folder, torch.no_grad():
        file = Path(folder) / "detector.onnx"
        raw(example)
        # For one image, as some detectors, Patchcore for one, compute with the number of images that they were traced
        # with.
        write_onnx(raw, (example,), file, input_names=["image"], output_names=["anomaly_map"])
        return file.read_bytes(), size
