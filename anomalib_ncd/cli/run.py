# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A whole discovery run and the folder it leaves."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.predictions import (
    ImagePrediction,
    RegionPrediction,
    image_predictions,
    region_predictions,
    write_csv,
)
from anomalib_ncd.metrics.discovery import discovery_report
from anomalib_ncd.models.checkpoints import own_part, save_model
from anomalib_ncd.models.cluster_discovery import discover_by_clustering
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.visualization.gallery import write_gallery

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "model"


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out.

    Attributes:
        max_epochs: Epochs of training; the paper trains 50.
        clustering: Clustering of the method ``cluster``.
        accelerator: Lightning's accelerator: ``auto``, ``cpu``, ``gpu``, …
        precision: Lightning's precision, such as ``32-true``, ``16-mixed`` or ``bf16-mixed``.
    """

    max_epochs: int = 50
    clustering: Literal["ward", "kmeans"] = "ward"
    accelerator: str = "auto"
    precision: str = "32-true"


def discover(
    model: AnomalyNcd,
    datamodule: NcdDataModule,
    output: str | Path,
    method: Literal["train", "cluster"] = "train",
    options: RunOptions | None = None,
    config: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Discover classes and leave a folder of results.

    The folder holds ``predictions.csv``, ``regions.csv``, ``metrics.json`` (where labels are known), ``gallery.png``,
    the crops and masks of the regions in ``regions/``, ``config.yaml`` and the checkpoint ``model.ckpt``. A run that
    was interrupted goes on where it stopped when it is started again with the same settings.

    Args:
        model: Model to train, or to take features from.
        datamodule: Images, maps and base classes; give it ``work_dir=output`` so that regions are kept.
        output: Folder of the run.
        method: ``"train"`` for AnomalyNCD, ``"cluster"`` for clusters of the frozen features.
        options: How the run is carried out.
        config: Resolved settings to write, and to compare with those of the run that is taken up again.

    Returns:
        What ``metrics.json`` says; ``None`` without labels.

    Raises:
        ValueError: If the folder holds a run with other settings.
    """
    output = Path(output)
    options = options or RunOptions()
    output.mkdir(parents=True, exist_ok=True)
    _claim_folder(output, config)
    if method == "cluster":
        batches = discover_by_clustering(
            model,
            datamodule,
            options.clustering,
            seed=datamodule.sampler_seed,
            device="cuda" if options.accelerator != "cpu" and torch.cuda.is_available() else "cpu",
        )
        save_model(model, output / f"{CHECKPOINT_NAME}.ckpt")
    else:
        batches = _train_and_predict(model, datamodule, output, options)
    class_names = model.class_names
    write_csv(output / "predictions.csv", image_predictions(batches, class_names), ImagePrediction)
    write_csv(output / "regions.csv", region_predictions(batches, class_names), RegionPrediction)
    write_gallery(output / "gallery.png", batches, class_names, datamodule.region_table())
    metrics = _score(batches, datamodule, class_names)
    if metrics is not None:
        (output / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    _say_result(batches, class_names, metrics, output)
    return metrics


def _claim_folder(output: Path, config: dict[str, Any] | None) -> None:
    """Write the settings, or make sure that they are those of the run to go on with."""
    if config is None:
        return
    file = output / "config.yaml"
    begun = (output / f"{CHECKPOINT_NAME}.ckpt").is_file() or (output / "predictions.csv").is_file()
    # The number of epochs may grow: training then goes on.
    wanted = {key: value for key, value in config.items() if key not in {"max_epochs", "output"}}
    if begun and file.is_file():
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        changed = sorted(key for key in wanted if found.get(key) != wanted[key])
        if changed:
            msg = f"{output} holds a run with other settings of {changed}; choose another `--output` or delete it."
            raise ValueError(msg)
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _train_and_predict(
    model: AnomalyNcd,
    datamodule: NcdDataModule,
    output: Path,
    options: RunOptions,
) -> list[NcdBatch]:
    """Train as far as it is not done yet, then predict every image."""
    checkpoint = output / f"{CHECKPOINT_NAME}.ckpt"
    saver = ModelCheckpoint(
        dirpath=output,
        filename=CHECKPOINT_NAME,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    engine = Engine(
        callbacks=[saver],
        max_epochs=options.max_epochs,
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,
        default_root_dir=output / "engine",
    )
    if _epochs_done(checkpoint) < options.max_epochs:
        engine.fit(model, datamodule=datamodule, ckpt_path=checkpoint if checkpoint.is_file() else None)
    predicted = engine.predict(model, datamodule=datamodule, return_predictions=True, ckpt_path=checkpoint)
    return list(predicted or [])


def _epochs_done(checkpoint: Path) -> int:
    """Epochs that a checkpoint was trained for; 0 where there is none."""
    if not checkpoint.is_file():
        return 0
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if not own_part(saved).get("has_normal_slot", True):
        msg = f"{checkpoint.parent} holds a run of the method 'cluster'; choose another folder for training."
        raise ValueError(msg)
    return int(saved["epoch"]) + 1


def _score(batches: list[NcdBatch], datamodule: NcdDataModule, class_names: list[str]) -> dict[str, Any] | None:
    """Scores of images and regions against the labels; ``None`` without labels."""
    if datamodule.class_ids is None:
        return None

    def column(name: str) -> np.ndarray:
        return torch.cat([getattr(batch, name) for batch in batches]).cpu().numpy()

    return {
        level: discovery_report(
            column(f"{prefix}pred_class_id"),
            column(f"{prefix}class_id"),
            class_names,
            datamodule.class_names,
            normal_label=datamodule.normal_label,
        )
        for level, prefix in (("image", ""), ("region", "region_"))
    }


def _say_result(
    batches: list[NcdBatch],
    class_names: list[str],
    metrics: dict[str, Any] | None,
    output: Path,
) -> None:
    """Say in a few lines what was found."""
    predicted = torch.cat([batch.pred_class_id for batch in batches if batch.pred_class_id is not None])
    sizes = predicted.bincount(minlength=len(class_names)).tolist()
    found = ", ".join(f"{name}: {size}" for name, size in zip(class_names, sizes, strict=True) if size)
    logger.info("%d images sorted into classes: %s.", len(predicted), found)
    if metrics is not None:
        image = metrics["image"]
        logger.info("NMI %.3f, ARI %.3f, accuracy %.3f.", image["nmi"], image["ari"], image["accuracy"])
    logger.info("Results are in %s; look at %s first.", output, output / "gallery.png")
