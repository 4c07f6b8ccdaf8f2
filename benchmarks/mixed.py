# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Images with two kinds of defect: multi-label F1 by the rule for regions that count, and defects that lie close.

    python benchmarks/mixed.py --output runs/mixed

Clusters (k-means) of EfficientNet-Lite0's features on generated plates: five kinds, 12 plates of each, 12 good ones
and 24 with two kinds. Then the same with false alarms of all strengths in the maps, without which no rule is
needed: every region counts then.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.metrics.multilabel import multilabel_report
from anomalib_ncd.regions.classes.image_classes import classes_of_image, counting_regions
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

RULES = [
    (0.0, 0.0),
    *((score, 0.4) for score in (0.5, 0.6, 0.7, 0.8, 0.9)),
    *((0.7, confidence) for confidence in (0.0, 0.6)),
    (9.0, 0.0),
]


@dataclass(frozen=True)
class Mixed:
    """Predictions of a data set with the kinds and boxes of its defects."""

    batch: NcdBatch
    names: list[str]
    target: np.ndarray
    boxes: list[list[tuple[float, ...]]]


def add_false_alarms(source: Path, target: Path, seed: int) -> Path:
    """Copy maps, with one or two bells of 0.15 to 0.75 of the full score somewhere in each."""
    rng = np.random.default_rng(seed)
    for file in sorted(source.rglob("*.npy")):
        found = np.load(file)
        rows, cols = np.indices(found.shape)
        for _ in range(rng.integers(1, 3)):
            (y, x), spread = rng.uniform(0.1, 0.9, 2) * found.shape, rng.uniform(0.02, 0.04) * found.shape[0]
            bell = np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * spread**2)) * rng.uniform(0.15, 0.75)
            found = np.maximum(found, bell.astype(np.float32))
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        np.save(copy, found)
    return target


def make(folder: Path, seed: int, *, with_false_alarms: bool) -> Mixed:
    """Draw a data set, cluster its regions, and read what was drawn."""
    kinds = np.random.default_rng(seed).permutation(DEFECT_KINDS)[:5].tolist()
    numbers = {"num_train_good": 0, "num_test_good": 12, "num_per_kind": 12, "num_mixed": 24}
    data = generate_dataset(folder / str(seed), kinds=kinds, seed=seed, anomaly_maps=True, **numbers)  # type: ignore[arg-type]
    maps = data.anomaly_maps_dir or data.root
    if with_false_alarms:
        maps = add_false_alarms(maps, folder / f"{seed}_false_alarms", seed)
    model = AnomalyNcd(backbone="offline", num_novel_classes=6)
    batch = NcdBatch.collate(discover_by_clustering(model, NcdDataModule(data.test_dir, maps)))
    defects: dict[str, list[tuple[str, tuple[float, ...]]]] = defaultdict(list)
    with data.defects_csv.open(newline="") as stream:
        for row in csv.DictReader(stream):
            defects[row["image"]].append((row["kind"], tuple(float(row[edge]) for edge in ("x0", "y0", "x1", "y1"))))
    keys = ["/".join(Path(path).parts[-2:]) for path in batch.image_path]
    columns = [*kinds, "good"]
    target = np.zeros((len(keys), len(columns)), dtype=bool)
    for image, key in enumerate(keys):
        for kind in [kind for kind, _ in defects[key]] or ["good"]:
            target[image, columns.index(kind)] = True
    return Mixed(batch, model.class_names, target, [[box for _, box in defects[key]] for key in keys])


def predicted_sets(mixed: Mixed, rule: tuple[float, float]) -> np.ndarray:
    """Classes ``(N, K)`` bool of each image by a rule: least relative score and confidence."""
    batch = mixed.batch
    normal = mixed.names.index("normal") if "normal" in mixed.names else None
    sets = np.zeros((len(batch), len(mixed.names)), dtype=bool)
    for image, slot in enumerate(batch.pred_class_id.tolist()):  # type: ignore[union-attr]
        own = batch.region_image_index == image
        scores, areas = batch.region_score[own].numpy(), batch.region_area[own].numpy()
        counting = counting_regions(scores, areas, batch.region_pred_class_score[own].numpy(), *rule)  # type: ignore[index]
        others = batch.region_pred_class_id[own].numpy()[counting].tolist()  # type: ignore[index]
        sets[image, classes_of_image(slot, others, mixed.names, normal)] = True
    return sets


def gaps_and_separation(mixed: Mixed) -> list[tuple[float, bool]]:
    """For each image of two defects: pixels between their boxes, and whether two regions hold one centre each."""
    found = []
    for image, boxes in enumerate(mixed.boxes):
        if len(boxes) == 2:
            (a, b), members = boxes, mixed.batch.region_image_index == image
            regions = mixed.batch.region_box_xyxy[members].numpy()
            apart = [max(0.0, max(a[i], b[i]) - min(a[i + 2], b[i + 2])) for i in (0, 1)]
            gap = float(np.hypot(apart[0], apart[1]))
            held = [_holders(box, regions) for box in boxes]
            found.append((gap, bool(held[0] - held[1]) and bool(held[1] - held[0])))
    return found


def _holders(box: tuple[float, ...], regions: np.ndarray) -> set[int]:
    """Regions that hold the centre of a box."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inside = (regions[:, 0] <= x) & (x < regions[:, 2]) & (regions[:, 1] <= y) & (y < regions[:, 3])
    return set(np.flatnonzero(inside).tolist())


def scores_of(mixed: Sequence[Mixed], rule: tuple[float, float]) -> list[float]:
    """Micro-F1, macro-F1 and exact match over all images, exact match of two kinds, share of one kind seen as two."""
    rows = []
    for each in mixed:
        sets, two = predicted_sets(each, rule), each.target.sum(axis=1) == 2
        report = multilabel_report(sets, each.target)
        called_two = sets.sum(axis=1) > 1
        rows.append([*report.values(), float(called_two[two].mean()), float(called_two[~two].mean())])
    return np.mean(rows, axis=0).tolist()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/mixed"))
    parser.add_argument("--choose", nargs="+", type=int, default=[0, 1], help="seeds that the rule is chosen on")
    parser.add_argument("--report", nargs="+", type=int, default=[2, 3], help="seeds that it is reported on")
    options = parser.parse_args()
    for noisy in (False, True):
        torch.manual_seed(0)
        groups = {"chosen on": options.choose, "reported": options.report}
        made = {
            title: [make(options.output, seed, with_false_alarms=noisy) for seed in seeds]
            for title, seeds in groups.items()
        }
        print("\nWith false alarms:" if noisy else "As drawn:", "\n")
        print_scores(made)
        print()
        print_separation(
            [pair for each in (*made["chosen on"], *made["reported"]) for pair in gaps_and_separation(each)]
        )


def print_scores(made: dict[str, list[Mixed]]) -> None:
    """Print a row per rule."""
    print("| relative score | confidence | seeds | micro-F1 | macro-F1 | exact | two said of two | two said of one |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for rule in RULES:
        for title, sets in made.items():
            cells = " | ".join(f"{value:.3f}" for value in scores_of(sets, rule))
            print(f"| {rule[0]} | {rule[1]} | {title} | {cells} |")


def print_separation(pairs: Sequence[tuple[float, bool]]) -> None:
    """Print a row per range of gaps."""
    edges = [0, 8, 16, 32, 64, 1000]
    print("| pixels between the boxes of two defects | images | two regions |\n| --- | --- | --- |")
    for low, high in itertools.pairwise(edges):
        inside = [apart for gap, apart in pairs if low <= gap < high]
        share = f"{np.mean(inside):.0%}" if inside else ""
        print(f"| {low} to {high} | {len(inside)} | {share} |")


if __name__ == "__main__":
    main()
