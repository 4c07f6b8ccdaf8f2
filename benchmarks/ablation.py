# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What each part of discovery brings: on defects painted onto real good images, and on Magnetic Tile Defect.

    python benchmarks/ablation.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/ablation

The painted sets are what defaults are chosen on: good tiles with defects of five or six kinds, evenly and unevenly
many, and the maps of a detector that was trained on other good tiles, false alarms included. Magnetic Tile Defect is
only reported. Image level, mean and standard deviation over seeds; ``good`` counts as a class. Runs that are done are
not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from discovery import build_parser, spread
from lightning.pytorch import seed_everything
from matplotlib import pyplot as plt

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.detector_maps import predict_anomaly_maps
from anomalib_ncd.metrics.discovery import discovery_report
from anomalib_ncd.models import describer
from anomalib_ncd.models.offline_detector import build_offline_detector
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plates import paint_defect

NUM_TRAIN_GOOD, NUM_TEST_GOOD = 40, 45
PAINTED: dict[str, dict[str, int]] = {
    "painted, even": dict.fromkeys(("scratch", "hole", "stain", "crack", "dent"), 30),
    "painted, uneven": {"crack": 48, "hole": 40, "smear": 30, "chip": 20, "dent": 12, "scratch": 8},
    "painted, even, other kinds": dict.fromkeys(("smear", "chip", "stain", "crack", "hole"), 30),
    "painted, uneven, other kinds": {"stain": 45, "dent": 38, "scratch": 28, "hole": 22, "crack": 12, "smear": 7},
}
OTHER_SEED = 1  # of the sets of other kinds, which lie on other tiles as well
PAPER: dict[str, Any] = {"prototypes": "random", "contrast": True, "feature_layers": 1, "empty_mask": "cls"}
SCORE_POWER, NOVELTY_WEIGHT = describer.SCORE_POWER, describer.NOVELTY_WEIGHT  # before a variant changes them
NO_BASE: dict[str, Any] = {"base": None}
NORMAL: dict[str, Any] = {"method": "ward", "normal": True, "base": None}
UNSCORED: dict[str, Any] = NORMAL | {"score_power": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "Ward, one layer": {"method": "ward", "feature_layers": 1},
    "Ward": {"method": "ward"},
    "Ward, peak without main element": {"method": "ward", "peak_if_empty": True},
    "Ward, normal images": NORMAL,
    "Ward, normal images, no whole images": NORMAL | {"novelty_weight": 0.0},
    "Ward, normal images, peak without main element": NORMAL | {"peak_if_empty": True},
    "Ward, normal images, score itself": NORMAL | {"score_power": 1.0},
    "Ward, normal images, no scores": UNSCORED,
    "Ward, normal images, no scores, padding 0.5": UNSCORED | {"padding_ratio": 0.5},
    "Ward, normal images, no scores, padding 1": UNSCORED | {"padding_ratio": 1.0},
    "Ward, normal images, no scores, largest region decides": UNSCORED | {"merging": 1.0},
    "Ward, normal images, no scores, regions count alike": UNSCORED | {"merging": 1e6},
    "default": {},
    "no base classes": {"base": None},
    "normal images": {"normal": True},
    "normal images, no base classes": {"normal": True, "base": None},
    "no base classes, peak without main element": {"base": None, "peak_if_empty": True},
    "normal images, no base classes, peak without main element": {"normal": True, "base": None, "peak_if_empty": True},
    "normal images, no base classes, compared": {"normal": True, "base": None, "prototypes": "compared"},
    "no base, pulled to the clusters' sizes": NO_BASE,
    "no base, mean-entropy weight 0": NO_BASE | {"mean_entropy_weight": 0.0},
    "no base, empty masks as in the paper": NO_BASE | {"empty_mask": "cls"},
    "no base, mean-entropy weight 1": NO_BASE | {"mean_entropy_weight": 1.0},
    "no base, mean-entropy weight 10": NO_BASE | {"mean_entropy_weight": 10.0},
    "no base, learning rate 0.001": NO_BASE | {"learning_rate": 0.001},
    "no base, learning rate 0.01": NO_BASE | {"learning_rate": 0.01},
    "no base, 20 epochs": NO_BASE | {"max_epochs": 20},
    "no base, 100 epochs": NO_BASE | {"max_epochs": 100},
    "no base, heads alone": NO_BASE | {"frozen": True},
    "no base, one head": NO_BASE | {"num_heads": 1},
    "no base, heads vote": NO_BASE | {"vote": True},
    "no base, mask in the last block": NO_BASE | {"mask_layers": 1},
    "no base, mask in all blocks": NO_BASE | {"mask_layers": 12},
    "no base, padding 0.5": NO_BASE | {"padding_ratio": 0.5},
    "no base, padding 1": NO_BASE | {"padding_ratio": 1.0},
    "no base, largest region decides": NO_BASE | {"merging": 1.0},
    "no base, regions count alike": NO_BASE | {"merging": 1e6},
    "pulled to the clusters' sizes": {},
    "no correction of pseudo-labels": {"normal_threshold": None},
    "with contrastive losses": {"contrast": True},
    "random start": {"prototypes": "random"},
    "random start, with contrastive losses": {"prototypes": "random", "contrast": True},
    "one layer": {"feature_layers": 1},
    "paper": PAPER,
}


def folder_of(name: str, options: argparse.Namespace) -> Path:
    """Where a painted set lies."""
    return options.output / name.replace(", ", "_")


def paint(data: Path, name: str, folder: Path) -> None:
    """Paint a set onto good tiles and predict its maps, if that isn't done yet."""
    if (folder / "maps").is_dir():
        return
    seeds = [OTHER_SEED] if name.endswith("other kinds") else []
    order = np.random.default_rng(seeds or 0).permutation(sorted((data / "mtd" / "train" / "good").glob("*.jpg")))
    train_dir = folder / "train" / "good"
    train_dir.mkdir(parents=True, exist_ok=True)
    for file in order[:NUM_TRAIN_GOOD]:
        shutil.copy(file, train_dir / file.name)
    counts = {"good": NUM_TEST_GOOD, **PAINTED[name]}
    kinds = np.repeat(list(counts), list(counts.values()))
    for number, (kind, file) in enumerate(zip(kinds.tolist(), order[NUM_TRAIN_GOOD:], strict=False)):
        image, rng = read_image(file), np.random.default_rng([len(counts), number, *seeds])
        if kind != "good":
            image, _ = paint_defect(image, kind, rng, scale=rng.uniform(0.6, 1.4), contrast=rng.uniform(0.6, 1.3))
        target = folder / "test" / kind / f"{file.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    detector = build_offline_detector()
    good = Folder(
        name="tiles",
        root=folder,
        normal_dir="train/good",
        val_split_mode="from_train",
        val_split_ratio=0.1,
        test_split_mode="none",
        num_workers=0,
        seed=0,
    )
    Engine(accelerator="cpu", devices=1, default_root_dir=folder / "engine").fit(detector, datamodule=good)
    predict_anomaly_maps(detector, list_images(folder / "test", None), folder / "maps", accelerator="cpu")


def datamodule_of(
    name: str,
    base: str | None,
    normal: bool,
    regions: RegionSettings,
    options: argparse.Namespace,
    work_dir: Path,
    seed: int,
) -> NcdDataModule:
    """A set with the steel defects as base classes or without any, with the detector's good tiles or without."""
    data = options.data
    arguments: dict[str, Any] = {"labels": "folders", "regions": regions, "work_dir": work_dir, "seed": seed}
    if normal:
        tiles = data / "mtd" if name == "MTD-mini" else folder_of(name, options)
        arguments["normal_images"] = tiles / "train" / "good"
    if base is not None:
        arguments |= {"base": data / "steel_base", "base_list": data / "steel_base_mini.txt"}
    if name == "MTD-mini":
        folders = data / "mtd" / "test", data / "mtd_anomaly_maps"
        return NcdDataModule(*folders, image_list=data / "mtd_mini.txt", **arguments)
    folder = folder_of(name, options)
    paint(data, name, folder)
    return NcdDataModule(folder / "test", folder / "maps", **arguments)


def run(name: str, variant: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Scores of one run."""
    result_file = options.output / "scores" / f"{name} {variant} {seed}.json"
    if result_file.is_file():
        return json.loads(result_file.read_text())
    settings = dict(VARIANTS[variant])
    base, method = settings.pop("base", "steel"), settings.pop("method", "train")
    normal, max_epochs = bool(settings.pop("normal", False)), settings.pop("max_epochs", options.max_epochs)
    regions = RegionSettings(
        padding_ratio=settings.pop("padding_ratio", RegionSettings.padding_ratio),
        peak_if_empty=settings.pop("peak_if_empty", RegionSettings.peak_if_empty),
    )
    vote = settings.pop("vote", False)
    describer.SCORE_POWER = settings.pop("score_power", SCORE_POWER)
    describer.NOVELTY_WEIGHT = settings.pop("novelty_weight", NOVELTY_WEIGHT)
    merging = settings.pop("merging", 50.0 if name == "MTD-mini" else None)
    # Views depend on what the frozen part is; variants that share it share them.
    frozen_encoder = settings.pop("frozen", False)
    shared: list[Any] = [settings.get(key) for key in ("feature_layers", "empty_mask", "mask_layers")]
    shared += [frozen_encoder, regions.padding_ratio, regions.peak_if_empty, base, normal, name, seed]
    frozen = " ".join(str(part) for part in shared)
    datamodule = datamodule_of(name, base, normal, regions, options, options.output / "work" / frozen, seed)
    seed_everything(seed, workers=True)
    datamodule.setup()
    model = AnomalyNcd(
        backbone=options.backbone,
        backbone_weights=options.weights,
        num_novel_classes=len(datamodule.class_names),
        describer="normal_residuals" if method != "train" and normal else "frozen_features",
        training=TrainingSettings(num_cached_views=4, merging_temperature=merging, **settings),
    )
    if frozen_encoder:
        model.model.describer.requires_grad_(requires_grad=False)
    if method == "train":
        engine = Engine(
            max_epochs=max_epochs,
            accelerator="cpu",
            devices=1,
            precision=options.precision,
            logger=False,
            enable_progress_bar=False,
            default_root_dir=options.output / "engine",
        )
        engine.fit(model, datamodule=datamodule)
        heads = range(model.training_settings.num_heads) if vote else [int(model.model.best_head)]
        batches: Sequence[Any] = predict(engine, model, datamodule, heads)
    else:
        batches = discover_by_clustering(model, datamodule, seed=seed)
    scores = image_scores(NcdBatch.collate(list(batches)), model.class_names, datamodule)
    result_file.parent.mkdir(parents=True, exist_ok=True)
    result_file.write_text(json.dumps(scores))
    return scores


def predict(engine: Engine, model: AnomalyNcd, datamodule: NcdDataModule, heads: Sequence[int]) -> list[NcdBatch]:
    """Predictions by the mean probabilities of some heads."""
    by_head = []
    for head in heads:
        model.model.best_head.fill_(head)
        batches = engine.predict(model, datamodule=datamodule, return_predictions=True) or []
        by_head.append(NcdBatch.collate([batch for batch in batches if isinstance(batch, NcdBatch)]))
    probabilities = torch.stack(
        [batch.class_probabilities for batch in by_head if batch.class_probabilities is not None]
    )
    return [by_head[0].update(pred_class_id=probabilities.mean(dim=0).argmax(dim=1))]


def image_scores(batch: NcdBatch, class_names: Sequence[str], datamodule: NcdDataModule) -> dict[str, float]:
    """NMI, ARI and accuracy of the images."""
    if batch.pred_class_id is None or batch.class_id is None:
        msg = "The batch lacks predictions or labels."
        raise ValueError(msg)
    preds, target = batch.pred_class_id.numpy(), batch.class_id.numpy()
    report = discovery_report(preds, target, class_names, datamodule.class_names, datamodule.normal_label)
    return {score: report[score] for score in ("nmi", "ari", "accuracy")}


def draw(results: Mapping[tuple[str, str], Sequence[float]], sets: Sequence[str], file: Path) -> None:
    """Draw the NMI of variants, a panel for each set and a point for each seed; a line marks the first variant."""
    variants = list(dict.fromkeys(variant for _, variant in results))
    figure, panels = plt.subplots(1, len(sets), figsize=(2 + 2.6 * len(sets), 0.8 + 0.28 * len(variants)), sharey=True)
    for panel, name in zip(np.atleast_1d(panels), sets, strict=True):
        for row, variant in enumerate(variants):
            values = results[name, variant]
            panel.plot(values, [row] * len(values), "o", color="#0072b2", alpha=0.5, markersize=4)
            panel.plot(np.mean(values), row, "|", color="black", markersize=11)
        panel.axvline(float(np.mean(results[name, variants[0]])), color="#999999", linewidth=0.8, linestyle=":")
        panel.set(title=name, xlabel="NMI", yticks=range(len(variants)), yticklabels=variants)
        panel.grid(axis="x", linewidth=0.3)
    np.atleast_1d(panels)[0].invert_yaxis()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def main() -> None:
    """Run the chosen sets, variants and seeds and print the table."""
    parser = build_parser(__doc__, "runs/ablation")
    parser.add_argument("--sets", nargs="+", choices=[*PAINTED, "MTD-mini"], default=[*PAINTED, "MTD-mini"])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max_epochs", type=int, default=50)
    parser.add_argument("--precision", default="32-true", help="Lightning's precision")
    parser.add_argument("--figure", type=Path, help="PNG of the table's NMI")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    print(f"| variant | {' | '.join(options.sets)} |\n| --- |{' --- |' * len(options.sets)}")
    results = {}
    for variant in options.variants:
        cells = []
        for name in options.sets:
            runs = [run(name, variant, seed, options) for seed in options.seeds]
            results[name, variant] = [result["nmi"] for result in runs]
            cells.append(" / ".join(spread([result[score] for result in runs]) for score in ("nmi", "accuracy")))
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)
    if options.figure:
        draw(results, options.sets, options.figure)


if __name__ == "__main__":
    main()
