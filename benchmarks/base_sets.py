# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Base classes: none, painted onto normal images, or labelled steel defects; on MTD and on generated plates.

The normal images that are painted on may be examples of *normal*, too, as they are where users give them.

    python benchmarks/base_sets.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/base_sets

Runs that are done are not run again. On generated plates the kinds of defect to discover are never among the painted
ones.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from anomalib.engine import Engine
from discovery import SCORES, build_parser, spread
from lightning.pytorch import seed_everything

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data import SyntheticSettings
from anomalib_ncd.data.synthetic_base import write_synthetic_base
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, draw_part, paint_defect, simulate_anomaly_map

BASES = ("none", "synthetic", "synthetic, examples of normal", "steel")
NOVEL_KINDS = DEFECT_KINDS[:8]
IMAGE_SCORES = {
    "nmi": "image_NMI",
    "ari": "image_ARI",
    "accuracy": "image_ClusterAccuracy",
    "macro_f1": "image_ClusterMacroF1",
}


def synthetic(base: str, normal: Path, settings: SyntheticSettings, folder: Path) -> dict[str, Any]:
    """Arguments for painted base classes: on normal images, which are examples of *normal* or not, or without any."""
    if base == "synthetic":  # the painted folder alone
        return {"base": write_synthetic_base(folder, list_images(normal), settings, RegionSettings())}
    normal_images = None if base == "synthetic, no normal images" else normal
    return {"base": "synthetic", "synthetic": settings, "normal_images": normal_images}


def mtd(data: Path, base: str, folder: Path, *, mini: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the datamodule and the model for Magnetic Tile Defect."""
    arguments: dict[str, Any] = {
        "images": data / "mtd" / "test",
        "anomaly_maps": data / "mtd_anomaly_maps",
        "image_list": data / "mtd_mini.txt" if mini else None,
    }
    if base == "steel":
        arguments |= {"base": data / "steel_base", "base_list": data / "steel_base_mini.txt" if mini else None}
    elif base.startswith("synthetic"):
        arguments |= synthetic(base, data / "mtd" / "train" / "good", SyntheticSettings(), folder / "painted_mtd")
    return arguments, {"num_novel_classes": 6}


def generated(data: Path, base: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the datamodule and the model for faint defects on grey plates; drawn where they are missing."""
    if not (folder / "maps").is_dir():
        draw_faint_plates(folder)
    arguments: dict[str, Any] = {"images": folder / "test", "anomaly_maps": folder / "maps"}
    if base == "steel":
        arguments |= {"base": data / "steel_base", "base_list": data / "steel_base_mini.txt"}
    elif base.startswith("synthetic"):
        others = [kind for kind in DEFECT_KINDS if kind not in NOVEL_KINDS]
        settings = SyntheticSettings(num_per_class=45, kinds=others)
        arguments |= synthetic(base, folder / "train" / "good", settings, folder / "painted")
    return arguments, {"num_novel_classes": len(NOVEL_KINDS) + 1}


def draw_faint_plates(folder: Path, per_class: int = 12, contrast: float = 0.2) -> None:
    """Draw grey plates with defects a fifth as strong as usual, and their maps; strong ones are told apart anyway."""
    for part, kind in (("train", "good"), ("test", "good"), *(("test", kind) for kind in NOVEL_KINDS)):
        for number in range(per_class):
            stream = [1, part == "train", 0 if kind == "good" else 1 + DEFECT_KINDS.index(kind), number]
            rng = np.random.default_rng(stream)
            image = draw_part(rng)
            mask = np.zeros(image.shape[:2], bool)
            if kind != "good":
                image, mask = paint_defect(image, kind, rng, contrast=contrast)
            file = folder / part / kind / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
            if part == "test":
                (folder / "maps" / kind).mkdir(parents=True, exist_ok=True)
                np.save(folder / "maps" / kind / f"{number:03d}.npy", simulate_anomaly_map(mask, rng))


def run(set_name: str, base: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train and test once, if that isn't done yet; return scores and seconds."""
    folder = options.output / f"{set_name}_{base.replace(' ', '_').replace(',', '')}_seed{seed}"
    result_file = folder / "scores.json"
    if result_file.is_file():
        return json.loads(result_file.read_text())
    if set_name == "generated":
        data_args, model_args = generated(options.data, base, options.output / "plates")
    else:
        data_args, model_args = mtd(options.data, base, options.output, mini=set_name == "mini")
    paper: dict[str, Any] = {"feature_layers": 1, "prototypes": "random", "contrast": True} if options.paper else {}
    seed_everything(seed, workers=True)
    start = time.perf_counter()
    datamodule = NcdDataModule(**data_args, labels="folders", work_dir=folder, seed=seed)
    model = AnomalyNcd(
        **model_args,
        backbone=options.backbone,
        backbone_weights=options.weights,
        training=TrainingSettings(num_cached_views=options.views, **paper),
        visualizer=False,
    )
    engine = Engine(
        max_epochs=options.max_epochs,
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,
        default_root_dir=folder / "engine",
        enable_progress_bar=False,
    )
    engine.fit(model, datamodule=datamodule)
    [metrics] = engine.test(model, datamodule=datamodule)
    result = {score: float(metrics[name]) for score, name in IMAGE_SCORES.items()}
    result["seconds"] = time.perf_counter() - start
    shutil.rmtree(folder / "cached_views", ignore_errors=True)
    result_file.write_text(json.dumps(result))
    return result


def main() -> None:
    """Run the chosen sets, bases and seeds and print the table."""
    parser = build_parser(__doc__, "runs/base_sets")
    parser.add_argument("--sets", nargs="+", choices=["generated", "mini", "full"], default=["generated", "mini"])
    parser.add_argument("--bases", nargs="+", choices=[*BASES, "synthetic, no normal images"], default=BASES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max_epochs", type=int, default=50)
    parser.add_argument("--views", type=int, default=4, help="cached views of each region")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--paper", action="store_true", help="features and prototypes as in the paper")
    options = parser.parse_args()
    logging.getLogger("lightning").setLevel(logging.WARNING)
    print("| data | base | seeds | NMI | ARI | accuracy | macro-F1 | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for set_name in options.sets:
        for base in options.bases:
            runs = [run(set_name, base, seed, options) for seed in options.seeds]
            scores = " | ".join(spread([result[score] for result in runs]) for score in SCORES)
            seconds = sum(result["seconds"] for result in runs) / len(runs)
            print(f"| {set_name} | {base} | {len(runs)} | {scores} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
