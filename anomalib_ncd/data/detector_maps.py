# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps straight from a fitted anomalib detector: of images in memory, or of files into a folder."""

import hashlib
import inspect
import json
import logging
import pickle
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.models import AnomalibModule
from torchvision.transforms.v2 import Resize
from tqdm import tqdm

from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import ImageFile, stamp_of
from anomalib_ncd.regions.writing import Journal, whole_file

logger = logging.getLogger(__name__)


class LightningDetector:
    """A fitted anomalib detector in PyTorch. Its maps are its own scores: not normalised, nor clipped."""

    def __init__(self, detector: AnomalibModule, device: torch.device | str = "cpu") -> None:
        self.detector = detector.eval().to(device)
        self.device = device
        self._resize = resize_of(detector)
        detector.setup("predict")  # detectors that are not fitted get ready here

    @cached_property
    def sha256(self) -> str:
        """Digest of class, transform and weights."""
        return detector_digest(self.detector)

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """Run images of one size together, others one by one; see :class:`~anomalib_ncd.deploy.Detector`."""
        del paths
        inputs = [as_input(image, self._resize) for image in images]
        alike = len({one.shape for one in inputs}) == 1
        batches = [torch.stack(inputs)] if alike else [one[None] for one in inputs]
        return [anomaly_map for batch in batches for anomaly_map in self._detect_batch(batch)]

    def _detect_batch(self, images: torch.Tensor) -> list[np.ndarray]:
        transform = getattr(self.detector.pre_processor, "transform", None)
        if transform is not None:
            images = transform(images)
        with torch.inference_mode(), _raw_scores(self.detector):
            outputs: Any = self.detector.predict_step(ImageBatch(image=images.to(self.device)), 0)
        if outputs.anomaly_map is None:
            msg = f"{type(self.detector).__name__} yields no anomaly maps, only scores; choose one that localises."
            raise ValueError(msg)
        maps = outputs.anomaly_map.float().cpu().numpy()
        return list(maps.reshape(len(maps), *maps.shape[-2:]))


def predict_anomaly_maps(
    detector: AnomalibModule,
    images: Sequence[ImageFile],
    folder: str | Path,
    *,
    bit_depth: int = 16,
    batch_size: int = 8,
    device: torch.device | str | None = None,
) -> list[Path]:
    """Predict anomaly maps, and keep them as float NPY files at the images' relative paths; returned in their order.

    Maps that the same detector made from the same images are not computed again. Each batch is written at once, so that
    nothing is lost when the run is killed. The detector runs on an accelerator, where there is one, without ``device``.
    ``bit_depth`` bits are used in 16-bit images. ``ValueError`` if the detector yields no anomaly maps, or NaN.
    """
    folder, name = Path(folder), type(detector).__name__
    how = {"detector": detector_digest(detector), "bit_depth": bit_depth}
    journal = Journal(folder / "maps.jsonl", json.dumps(how, indent=2))
    for path in () if journal.entries else folder.rglob("*.npy"):
        path.unlink()
    map_paths = [folder / f"{image.key}.npy" for image in images]
    states = [{"image": image.key, "stamp": [*stamp_of(image.path)]} for image in images]
    todo = [
        (image, path, state)
        for image, path, state in zip(images, map_paths, states, strict=True)
        if journal.entries.get(image.key) != state or not path.is_file()
    ]
    if not todo:
        return map_paths
    logger.info("Predicting %d anomaly maps with %s.", len(todo), name)
    device = device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
    running = LightningDetector(detector, device)
    for first in tqdm(range(0, len(todo), batch_size), desc="Predicting anomaly maps", unit="batch"):
        batch = todo[first : first + batch_size]
        maps = running.detect([read_image(image.path, bit_depth) for image, _, _ in batch])
        for (image, file, state), anomaly_map in zip(batch, maps, strict=True):
            if not np.isfinite(anomaly_map).all():
                msg = f"{name} yields NaN or infinite scores for {image.path}; was it fitted?"
                raise ValueError(msg)
            with whole_file(file) as unfinished:
                np.save(unfinished, anomaly_map)
            journal.add(state)
    detector.cpu()
    return map_paths


def load_detector(detector_class: type[AnomalibModule], ckpt_path: str | Path, **init_args: Any) -> AnomalibModule:
    """Load a detector from a Lightning checkpoint onto the CPU, without a model hub.

    ``init_args`` override the checkpoint's; ``pre_trained`` is off unless given. ``FileNotFoundError`` or
    ``ValueError`` if there is no checkpoint, or it holds more than plain data.
    """
    if not Path(ckpt_path).is_file():
        msg = f"There is no detector checkpoint {ckpt_path}; give the .ckpt file that anomalib wrote when it trained."
        raise FileNotFoundError(msg)
    if "pre_trained" in inspect.signature(detector_class).parameters:
        init_args.setdefault("pre_trained", False)
    init_args["_instantiator"] = None  # which Lightning would import and call
    try:
        return detector_class.load_from_checkpoint(ckpt_path, map_location="cpu", **init_args)
    except pickle.UnpicklingError as error:
        msg = f"{ckpt_path} is no checkpoint of a detector: it is damaged or holds more than plain data."
        raise ValueError(msg) from error


@contextmanager
def _raw_scores(detector: AnomalibModule) -> Iterator[None]:
    """Take post-processor, evaluator and visualizer off the detector while it predicts, and put them back."""
    names = ("post_processor", "evaluator", "visualizer")
    kept = {name: getattr(detector, name) for name in names}
    for name in names:
        setattr(detector, name, None)
    try:
        yield
    finally:
        for name, component in kept.items():
            setattr(detector, name, component)


def detector_digest(detector: AnomalibModule) -> str:
    """SHA-256 of a detector's class, transform, weights and whatever else it has fitted."""
    transform = getattr(detector.pre_processor, "transform", None)
    return digest_of_weights(detector, start=f"{type(detector).__name__} {transform!r}")


def digest_of_weights(module: torch.nn.Module, skipped: Collection[str] = (), start: str = "") -> str:
    """SHA-256 of a text and of the tensors that a module's state holds, but for the ``skipped`` names."""
    digest = hashlib.sha256(start.encode())
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor) and name not in skipped:
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def resize_of(detector: AnomalibModule) -> Resize | None:
    """The resize that a detector starts with."""
    transform = getattr(detector.pre_processor, "transform", None)
    resizes = extract_transforms_by_type(transform, Resize) if transform is not None else []
    return resizes[0] if resizes else None


def as_input(pixels: np.ndarray, resize: Resize | None) -> torch.Tensor:
    """Image ``(3, h, w)`` in [0, 1] at a detector's size, as its datamodule would hand it over."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return image if resize is None else resize(image)
