# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps straight from a fitted anomalib detector, through ``Engine.predict``."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import pickle
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

from anomalib_ncd.regions.reading.file_bytes import stamp_of
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import ImageFile
from anomalib_ncd.regions.writing import whole_file, write_file

logger = logging.getLogger(__name__)


def predict_anomaly_maps(
    detector: AnomalibModule,
    images: Sequence[ImageFile],
    folder: str | Path,
    *,
    ckpt_path: str | Path | None = None,
    bit_depth: int = 16,
    batch_size: int = 8,
    accelerator: str = "auto",
) -> list[Path]:
    """Predict anomaly maps with a detector and keep them as float NPY files at the images' relative paths.

    The maps are the detector's own scores: its normalisation, which clips, is off while they are made. Maps that the
    same detector made from the same images are not computed again.

    Args:
        detector: Fitted anomalib image model.
        images: Images to predict.
        folder: Where the maps go.
        ckpt_path: Lightning checkpoint to load a detector of this class from. ``None``: it is fitted.
        bit_depth: Bits that are used in 16-bit images.
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
    record = _MapRecord(folder, f"{detector_digest(detector)} {bit_depth}")
    map_paths = [folder / f"{image.key}.npy" for image in images]
    todo = [(image, path) for image, path in zip(images, map_paths, strict=True) if not record.is_current(image, path)]
    if todo:
        logger.info("Predicting %d anomaly maps with %s.", len(todo), type(detector).__name__)
        dataset = DetectorImages([image for image, _ in todo], detector, bit_depth)
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=ImageBatch.collate)
        saver = _MapSaver({str(image.path): (image, path) for image, path in todo}, record)
        engine = Engine(callbacks=[saver], accelerator=accelerator, devices=1, default_root_dir=folder / "engine")
        with raw_scores(detector):
            engine.predict(detector, dataloaders=loader, return_predictions=False)
    return map_paths


def load_detector(
    detector_class: type[AnomalibModule],
    ckpt_path: str | Path,
    **init_args: Any,  # noqa: ANN401
) -> AnomalibModule:
    """Load a detector from a Lightning checkpoint onto the CPU, without a model hub.

    Args:
        detector_class: anomalib model.
        ckpt_path: Checkpoint that anomalib wrote when it trained the detector.
        **init_args: Arguments that override the checkpoint's. ``pre_trained`` is off unless given.

    Raises:
        FileNotFoundError: If the checkpoint doesn't exist.
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


class DetectorImages(Dataset):
    """Images at the detector's own input size, as its datamodule would hand them over."""

    def __init__(self, images: Sequence[ImageFile], detector: AnomalibModule, bit_depth: int) -> None:
        self.images, self.bit_depth = images, bit_depth
        transform = getattr(detector.pre_processor, "transform", None)
        resizes = extract_transforms_by_type(transform, Resize) if transform is not None else []
        self.resize = resizes[0] if resizes else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageItem:
        path = self.images[index].path
        image = torch.from_numpy(read_image(path, self.bit_depth)).permute(2, 0, 1).float() / 255
        return ImageItem(image=image if self.resize is None else self.resize(image), image_path=str(path))


class _MapSaver(Callback):
    """Writes each batch's maps as soon as they are there, so that nothing is lost when the run is killed."""

    def __init__(self, files: dict[str, tuple[ImageFile, Path]], record: _MapRecord) -> None:
        self.files, self.record = files, record

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
            image, file = self.files[path]
            with whole_file(file) as unfinished:
                np.save(unfinished, anomaly_map.reshape(anomaly_map.shape[-2:]))
            self.record.add(image)


class _MapRecord:
    """What the maps of a folder were made from: the detector in the first line, then a line for each image."""

    def __init__(self, folder: Path, detector: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "made_from.jsonl"
        lines = self.file.read_text(encoding="utf-8").split("\n") if self.file.is_file() else [""]
        self._done = set(lines[1:-1])  # what follows the last line break was cut off
        if lines[0] != detector:
            self._done = set()
            for path in folder.rglob("*.npy"):
                path.unlink()
        write_file(self.file, "".join(f"{line}\n" for line in (detector, *sorted(self._done))))

    def is_current(self, image: ImageFile, map_path: Path) -> bool:
        """Whether a map was made from the image as it is now."""
        return map_path.is_file() and _line_of(image) in self._done

    def add(self, image: ImageFile) -> None:
        """Note that the map of an image is there."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"{_line_of(image)}\n")


def _line_of(image: ImageFile) -> str:
    """Which image it is and in what state."""
    return json.dumps([image.key, *stamp_of(image.path)])


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
    """SHA-256 of a detector's class, transform, weights and whatever else it has fitted."""
    transform = getattr(detector.pre_processor, "transform", None)
    digest = hashlib.sha256(f"{type(detector).__name__} {transform!r}".encode())
    for name, value in sorted(detector.state_dict().items()):
        if isinstance(value, torch.Tensor):
            values = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()
