# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Detectors that need anomalib to run: fitted models and their export with their own scores."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.models import AnomalibModule
from torchvision.transforms.v2 import Resize

from anomalib_ncd.data.detector_maps import detector_digest, raw_scores
from anomalib_ncd.deploy.detectors import as_map


class LightningDetector:
    """A fitted anomalib detector in PyTorch, with its maps of ``predict_anomaly_maps``: not normalised, nor clipped."""

    def __init__(self, detector: AnomalibModule, device: str = "cpu") -> None:
        self.detector = detector.eval().to(device)
        self.device = device
        self._transform = getattr(detector.pre_processor, "transform", None)
        self._resize = _resize_of(detector)

    @cached_property
    def sha256(self) -> str:
        """Digest of the detector."""
        return detector_digest(self.detector)

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """Run images of one size together, others one by one."""
        del paths
        inputs = [self._as_input(image) for image in images]
        alike = len({one.shape for one in inputs}) == 1
        batches = [torch.stack(inputs)] if alike else [one[None] for one in inputs]
        return [anomaly_map for batch in batches for anomaly_map in self._detect_batch(batch)]

    def _as_input(self, pixels: np.ndarray) -> torch.Tensor:
        """Image ``(3, H, W)`` at the detector's size, as its datamodule would hand it over."""
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return image if self._resize is None else self._resize(image)

    def _detect_batch(self, images: torch.Tensor) -> list[np.ndarray]:
        """Maps of images of one size."""
        if self._transform is not None:
            images = self._transform(images)
        with torch.inference_mode(), raw_scores(self.detector):
            outputs: Any = self.detector.predict_step(ImageBatch(image=images.to(self.device)), 0)
        if outputs.anomaly_map is None:
            msg = f"{type(self.detector).__name__} yields no anomaly maps; choose a detector that localises."
            raise ValueError(msg)
        return [as_map(one) for one in outputs.anomaly_map.float().cpu().numpy()]


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

    Returns:
        ONNX file, and the height and width that images must have.

    Raises:
        ValueError: If its input size is not known or it has no anomaly maps.
    """
    resize = _resize_of(detector)
    size = None if resize is None else _size_of(resize)
    if size is None:
        msg = f"{type(detector).__name__} does not say which input size it has; export it yourself and give the file."
        raise ValueError(msg)
    raw = _RawDetector(detector.cpu()).eval()
    with tempfile.TemporaryDirectory(prefix="anomalib_ncd_") as folder:
        file = Path(folder) / "detector.onnx"
        # Some detectors, Patchcore for one, compute with the number of images, and only work with what they were
        # traced with; they take images one by one.
        if not _trace(raw, file, size, num_images=2):
            _trace(raw, file, size, num_images=1)
        return file.read_bytes(), size


def _trace(raw: _RawDetector, file: Path, size: tuple[int, int], num_images: int) -> bool:
    """Write a detector as ONNX, and say whether it takes any number of images; a trace of one never does."""
    example = torch.rand(num_images, 3, *size)
    with torch.no_grad():
        raw(example)
        program = torch.onnx.export(
            raw,
            (example,),
            str(file),
            dynamo=True,
            input_names=["image"],
            output_names=["anomaly_map"],
            dynamic_shapes=({0: torch.export.Dim("images")},) if num_images > 1 else None,
            opset_version=18,
            external_data=False,
            verbose=False,
        )
    shape = program.model.graph.inputs[0].shape  # type: ignore[union-attr]
    return shape is not None and not isinstance(shape[0], int)


def _resize_of(detector: AnomalibModule) -> Resize | None:
    """The resize that the detector starts with."""
    transform = getattr(detector.pre_processor, "transform", None)
    resizes = extract_transforms_by_type(transform, Resize) if transform is not None else []
    return resizes[0] if resizes else None


def _size_of(resize: Resize) -> tuple[int, int] | None:
    """Height and width that a resize leads to; ``None`` where they depend on the image."""
    size = list(resize.size or [])
    return (int(size[0]), int(size[1])) if len(size) == 2 else None
