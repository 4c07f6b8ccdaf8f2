# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Detectors that need anomalib to run: fitted models and their export with their own scores."""

from __future__ import annotations

import math
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
from anomalib_ncd.deploy.detectors import Detection, as_map
from anomalib_ncd.deploy.image_files import ImageInput


class LightningDetector:
    """A fitted anomalib detector in PyTorch, with its own scores: neither normalised nor clipped.

    Maps are those of ``anomalib_ncd.data.detector_maps.predict_anomaly_maps``.

    Args:
        detector: Fitted anomalib image model.
        device: Where it runs.
    """

    def __init__(self, detector: AnomalibModule, device: str = "cpu") -> None:
        self.detector = detector.eval().to(device)
        self.device = device
        self.threshold = raw_image_threshold(detector)
        self._transform = getattr(detector.pre_processor, "transform", None)
        self._resize = _resize_of(detector)

    @cached_property
    def sha256(self) -> str:
        """Digest of the detector."""
        return detector_digest(self.detector)

    def detect(self, images: Sequence[ImageInput]) -> list[Detection]:
        """Run images of one size together, others one by one."""
        inputs = [self._as_input(image.pixels) for image in images]
        alike = len({one.shape for one in inputs}) == 1
        batches = [torch.stack(inputs)] if alike else [one[None] for one in inputs]
        return [detection for batch in batches for detection in self._detect_batch(batch)]

    def _as_input(self, pixels: np.ndarray) -> torch.Tensor:
        """Image ``(3, H, W)`` at the detector's size, as its datamodule would hand it over."""
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return image if self._resize is None else self._resize(image)

    def _detect_batch(self, images: torch.Tensor) -> list[Detection]:
        """Detections of images of one size."""
        if self._transform is not None:
            images = self._transform(images)
        with torch.inference_mode(), raw_scores(self.detector):
            outputs: Any = self.detector.predict_step(ImageBatch(image=images.to(self.device)), 0)
        if outputs.anomaly_map is None:
            msg = f"{type(self.detector).__name__} yields no anomaly maps; choose a detector that localises."
            raise ValueError(msg)
        maps = outputs.anomaly_map.float().cpu().numpy()
        scores = [None] * len(maps) if outputs.pred_score is None else outputs.pred_score.flatten().tolist()
        return [Detection(as_map(one), score, self._verdict(score)) for one, score in zip(maps, scores, strict=True)]

    def _verdict(self, score: float | None) -> bool | None:
        """Whether a score is above the threshold that anomalib fitted."""
        return None if score is None or self.threshold is None else score > self.threshold


def raw_image_threshold(detector: AnomalibModule) -> float | None:
    """Score above which a detector calls an image anomalous, in its own units; ``None`` where none was fitted.

    Args:
        detector: Fitted anomalib image model.
    """
    post_processor: Any = detector.post_processor
    if not hasattr(post_processor, "image_threshold"):
        return None
    threshold = float(post_processor.image_threshold)
    sensitivity = float(getattr(post_processor, "image_sensitivity", 0.5))
    width = float(getattr(post_processor, "image_max", 0)) - float(getattr(post_processor, "image_min", 0))
    # The sensitivity moves the threshold on the normalised scale, where it lies at 0.5.
    if sensitivity != 0.5:
        threshold += (0.5 - sensitivity) * width
    return threshold if math.isfinite(threshold) else None


class _RawDetector(torch.nn.Module):
    """Pre-processor and network, without post-processor."""

    def __init__(self, detector: AnomalibModule) -> None:
        super().__init__()
        self.pre_processor = detector.pre_processor
        self.network = detector.model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Own maps and, where there are some, scores of images ``(B, 3, H, W)`` in [0, 1]."""
        found: InferenceBatch = self.network(image if self.pre_processor is None else self.pre_processor(image))
        if found.anomaly_map is None:
            msg = "The detector yields no anomaly maps, only scores; choose one that localises."
            raise ValueError(msg)
        return (found.anomaly_map,) if found.pred_score is None else (found.anomaly_map, found.pred_score)


def export_raw_detector(detector: AnomalibModule) -> tuple[bytes, tuple[int, int]]:
    """Export a detector with its own scores, neither normalised nor clipped, as MEBin's range needs them.

    Args:
        detector: Fitted anomalib image model.

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
        names = ["anomaly_map", "pred_score"][: len(raw(example))]
        program = torch.onnx.export(
            raw,
            (example,),
            str(file),
            dynamo=True,
            input_names=["image"],
            output_names=names,
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
