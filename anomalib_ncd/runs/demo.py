# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The whole way on images that are drawn for it, without network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning.pytorch import seed_everything

from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.models.offline_detector import build_offline_detector
from anomalib_ncd.runs.discover import discover
from anomalib_ncd.settings import RunOptions, TrainingSettings
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, GeneratedDataset, generate_dataset

logger = logging.getLogger(__name__)


def run_demo(output: Path, method: Literal["cluster", "train"] = "cluster", seed: int = 0) -> None:
    """Draw images, fit a detector, discover the kinds of defect and say what to do next."""
    seed_everything(seed, workers=True, verbose=False)
    data = generate_dataset(
        output / "data",
        num_train_good=20,
        num_per_kind=16,
        base_kinds=DEFECT_KINDS[5:9],
        seed=seed,
    )
    logger.info("Drew images with %s in %s.", ", ".join(data.kinds), data.root)
    detector = fit_demo_detector(data, output / "detector")
    datamodule = NcdDataModule(
        images=data.test_dir,
        anomaly_maps=detector,
        base=data.root / "base",
        labels=data.labels_csv,
        work_dir=output,
        seed=seed,
    )
    model = AnomalyNcd(
        backbone="offline", num_novel_classes=len(data.kinds) + 1, training=TrainingSettings(num_cached_views=4)
    )
    discover(model, datamodule, output, method, RunOptions(accelerator="cpu"))
    logger.info(
        "Next, your own images, the maps of your own detector and the good images that it was trained on: anomalib-ncd "
        "discover --images FOLDER --anomaly_maps FOLDER --normal_images FOLDER --backbone offline --method %s "
        "--output runs/mine",
        method,
    )


def fit_demo_detector(data: GeneratedDataset, folder: Path) -> AnomalibModule:
    """Fit a small patch-memory detector on the good images, with the weights of the extra ``[offline]``."""
    detector = build_offline_detector()
    images = Folder(
        name="demo",
        root=data.root,
        normal_dir="train/good",
        val_split_mode="from_train",
        val_split_ratio=0.1,
        test_split_mode="none",
        num_workers=0,
        seed=0,
    )
    Engine(accelerator="cpu", devices=1, default_root_dir=folder).fit(detector, datamodule=images)
    return detector
