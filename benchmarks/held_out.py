# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Images that a run has never seen: discover on one half of Magnetic Tile Defect, classify the other.

Images are split by the digest of their names, stratified by class. Each half is discovered once and classified once
with what was learnt on the other. The scores of the half that was discovered are the transductive ones. "Names"
matches classes to labels on the half that was discovered, as a user does who names them, and counts on the other.
Runs that are done are not run again.

    python benchmarks/held_out.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --methods cluster train
"""

from __future__ import annotations

import argparse
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from anomalib.engine import Engine
from discovery import SCORES, build_parser, run_timed, spread

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.metrics.discovery import discovery_report
from anomalib_ncd.metrics.matching import match_classes
from anomalib_ncd.results.run_results import RunResults

METHODS = {
    "cluster": ["--method", "cluster"],
    "cluster, normal images": ["--method", "cluster", "--normal_images", "{data}/mtd/train/good"],
    "train": ["--method", "train", "--training.num_cached_views", "4", "--precision", "bf16-mixed"],
}


def split(images: Path, seed: int = 0) -> list[list[str]]:
    """Relative paths of two halves, each with half of every class, by the digest of the name."""
    of_class = defaultdict(list)
    for path in images.rglob("*.jpg"):
        of_class[path.parent.name].append(path.relative_to(images).as_posix())
    halves: list[list[str]] = [[], []]
    for paths in of_class.values():
        ordered = sorted(paths, key=lambda path: hashlib.sha256(f"{seed} {path}".encode()).digest())
        for number, name in enumerate(ordered):
            halves[number % 2].append(name)
    return [sorted(half) for half in halves]


def predict(run: Path, datamodule: NcdDataModule) -> NcdBatch:
    """Classify images with what a run has learnt."""
    model = AnomalyNcd.load_from_checkpoint(run / "model.ckpt")
    with TemporaryDirectory() as folder:
        engine = Engine(
            accelerator="cpu",
            devices=1,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches: Sequence[Any] = engine.predict(model, datamodule=datamodule) or []
        return NcdBatch.collate(list(batches))


def image_scores(images: NcdBatch, class_names: list[str], label_names: list[str]) -> dict[str, float]:
    """Scores of images against their labels."""
    classes, labels = _classes_and_labels(images)
    report = discovery_report(classes, labels, class_names, label_names)
    return {score: report[score] for score in SCORES}


def named_accuracy(run: NcdBatch, held_out: NcdBatch) -> float:
    """Accuracy on new images under the names that fit the images of the run best."""
    matching = match_classes(*_classes_and_labels(run))
    classes, labels = _classes_and_labels(held_out)
    return float(np.mean([matching.get(int(slot), -1) == label for slot, label in zip(classes, labels, strict=True)]))


def one_run(name: str, flags: list[str], options: argparse.Namespace, halves: list[Path], half: int) -> list[dict]:
    """Discover a half, if that isn't done yet, and classify the other; scores of both."""
    images, maps = options.data / "mtd" / "test", options.data / "mtd_anomaly_maps"
    run = options.output / f"{options.backbone}_{name}_half{half}"
    data_flags = ["--images", str(images), "--anomaly_maps", str(maps), "--image_list", str(halves[half])]
    run_timed([*flags, *data_flags, "--labels", "folders"], run)
    results = RunResults.load(run / "results.npz")
    found = predict(run, NcdDataModule(images, maps, image_list=halves[1 - half], labels="folders"))
    seen, unseen = (image_scores(batch, results.slot_names, results.label_names) for batch in (results.batch, found))
    seen["names"] = named_accuracy(results.batch, results.batch)
    unseen["names"] = named_accuracy(results.batch, found)
    for scores, batch in ((seen, results.batch), (unseen, found)):
        assert batch.region_unknown is not None
        scores["unknown"] = float(batch.region_unknown.float().mean())
    return [seen, unseen]


def main() -> None:
    """Run all methods, seeds and halves and print the table."""
    parser = build_parser(__doc__, "runs/held_out")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["cluster"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="clusters without normal images have none")
    parser.add_argument("--max_epochs", type=int, default=50)
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    halves = []
    for number, paths in enumerate(split(options.data / "mtd" / "test")):
        halves.append(options.output / f"half{number}.txt")
        halves[-1].write_text("\n".join(paths) + "\n")
    model = ["--backbone", options.backbone, "--num_novel_classes", "6", "--training.merging_temperature", "50"]
    model += ["--max_epochs", str(options.max_epochs), "--accelerator", "cpu"]
    if options.weights:
        model += ["--backbone_weights", str(options.weights)]
    base = ["--base", str(options.data / "steel_base"), "--base_list", str(options.data / "steel_base_mini.txt")]
    print("| method | images | runs | NMI | ARI | accuracy | macro-F1 | accuracy under names | unknown regions |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for method in options.methods:
        seeds = options.seeds[:1] if method == "cluster" else options.seeds  # nothing in it is random
        pairs = []
        for seed in seeds:
            own = [flag.format(data=options.data) for flag in METHODS[method]]
            flags = [*model, *own, "--seed", str(seed), *(base if method == "train" else [])]
            pairs += [
                one_run(f"{method.replace(', ', '_')}_seed{seed}", flags, options, halves, half) for half in range(2)
            ]
        for name, column in zip(("of the run", "held out"), zip(*pairs, strict=True), strict=True):
            scores = " | ".join(spread([scores[key] for scores in column]) for key in (*SCORES, "names", "unknown"))
            print(f"| {method} | {name} | {len(column)} | {scores} |", flush=True)


def _classes_and_labels(images: NcdBatch) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes of images."""
    assert images.pred_class_id is not None
    assert images.class_id is not None
    return images.pred_class_id.numpy(), images.class_id.numpy()


if __name__ == "__main__":
    main()
