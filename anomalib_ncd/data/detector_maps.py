# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps straight from a fitted anomalib detector, through ``Engine.predict``."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Resize

from anomalib_ncd.data.images import ImageRecord, read_image

logger = logging.getLogger(__name__)


def predict_anomaly_maps(
    detector: AnomalibModule,
    images: Sequence[ImageRecord],
    folder: str | Path,
    *,
    ckpt_path: str | Path | None = None,
    batch_size: int = 8,
    accelerator: str = "auto",
) -> list[Path]:
    """Predict anomaly maps with a detector and keep them as float NPY files.

    The maps are the detector's own scores: its normalisation, which clips, is off while they are made. Maps that an
    interrupted run has finished with the same detector are not computed again.

    Args:
        detector: Fitted anomalib image model.
        images: Images to predict.
        folder: Where the maps go, at the images' relative paths.
        ckpt_path: Lightning checkpoint to load a detector of this class from. Defaults to ``None``: it is fitted.
        batch_size: Images per batch.
        accelerator: Accelerator of the engine.

    Returns:
        Map file of each image, in the order of ``images``.

    Raises:
        FileNotFoundError: If the checkpoint doesn't exist.
        ValueError: If the detector yields no anomaly maps, or NaN.
    """
    folder = Path(folder)
    if ckpt_path is not None:
        detector = load_detector(type(detector), ckpt_path)
    _forget_other_detector(detector, folder)
    map_paths = [folder / f"{image.key}.npy" for image in images]
    todo = [(image, path) for image, path in zip(images, map_paths, strict=True) if not _is_current(path, image)]
    if todo:
        logger.info("Predicting %d anomaly maps with %s.", len(todo), type(detector).__name__)
        dataset = _DetectorImages([image for image, _ in todo], detector)
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=ImageBatch.collate)
        saver = _MapSaver({str(image.path): path for image, path in todo})
        engine = Engine(callbacks=[saver], accelerator=accelerator, devices=1, default_root_dir=folder / "engine")
        with raw_scores(detector):
            engine.predict(detector, dataloaders=loader, return_predictions=False)
    return map_paths


def load_detector(
    detector_class: type[AnomalibModule],
    ckpt_path: str | Path,
    **init_args: Any,  # noqa: ANN401
) -> AnomalibModule:
    """Load a detector from a Lightning checkpoint, without a model hub.

    Args:
        detector_class: anomalib model.
        ckpt_path: Checkpoint that anomalib wrote when it trained the detector.
        **init_args: Arguments that override the checkpoint's. ``pre_trained`` is off unless given: the checkpoint
            holds the backbone's weights already.

    Returns:
        The detector, on the CPU.

    Raises:
        FileNotFoundError: If the checkpoint doesn't exist.
    """
    if not Path(ckpt_path).is_file():
        msg = f"There is no detector checkpoint {ckpt_path}; give the .ckpt file that anomalib wrote when it trained."
        raise FileNotFoundError(msg)
    if "pre_trained" in inspect.signature(detector_class).parameters:
        init_args.setdefault("pre_trained", False)
    return detector_class.load_from_checkpoint(ckpt_path, map_location="cpu", **init_args)


class _DetectorImages(Dataset):
    """Images at the detector's own input size, as its datamodule would hand them over."""

    def __init__(self, images: Sequence[ImageRecord], detector: AnomalibModule) -> None:
        self.images = images
        transform = getattr(detector.pre_processor, "transform", None)
        resizes = extract_transforms_by_type(transform, Resize) if transform is not None else []
        self.resize = resizes[0] if resizes else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageItem:
        path = self.images[index].path
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1).float() / 255
        return ImageItem(image=image if self.resize is None else self.resize(image), image_path=str(path))


class _MapSaver(Callback):
    """Writes each batch's maps as soon as they are there, so that nothing is lost when the run is killed."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Save the maps of a batch."""
        del trainer, args, kwargs
        if outputs.anomaly_map is None:
            msg = f"{type(pl_module).__name__} yields no anomaly maps, only scores; choose a detector that localises."
            raise ValueError(msg)
        maps = outputs.anomaly_map.detach().float().cpu().numpy()
        for path, anomaly_map in zip(outputs.image_path, maps, strict=True):
            if not np.isfinite(anomaly_map).all():
                msg = f"{type(pl_module).__name__} yields NaN or infinite scores for {path}; was it fitted?"
                raise ValueError(msg)
            file = self.files[path]
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".tmp.npy")
            np.save(unfinished, anomaly_map.reshape(anomaly_map.shape[-2:]))
            unfinished.replace(file)


def _is_current(map_path: Path, image: ImageRecord) -> bool:
    """Whether a map was made from the image as it is now."""
    return map_path.is_file() and map_path.stat().st_mtime_ns >= image.path.stat().st_mtime_ns


@contextmanager
def raw_scores(detector: AnomalibModule) -> Iterator[None]:
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
    """SHA-256 of a detector's class, weights and whatever else it has fitted."""
    digest = hashlib.sha256(type(detector).__name__.encode())
    for name, value in sorted(detector.state_dict().items()):
        if isinstance(value, torch.Tensor):
            values = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def _forget_other_detector(detector: AnomalibModule, folder: Path) -> None:
    """Delete maps that another detector has left in the folder."""
    digest = detector_digest(detector)
    file = folder / "detector.txt"
    if file.is_file() and file.read_text(encoding="utf-8") != digest:
        for path in folder.rglob("*.npy"):
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(digest, encoding="utf-8")
