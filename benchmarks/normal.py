# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How well *normal* gathers false alarms: in finished runs, and among clusters of generated data.

    python benchmarks/normal.py --runs runs/normal/* \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/normal_clusters

``--runs`` takes finished runs with labels. ``--weights`` makes the generated part run, which tries limits of the rule
for clusters: without good images, and with a kind of defect that the detector hardly sees, the right answer is that
there is no normal cluster.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from health_runs import describe, generated_sets
from torch.nn import functional as F

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.clustering.clustering import cluster_features
from anomalib_ncd.models.clustering.normal_cluster import find_normal_cluster
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.files import score

COLUMNS = ("recall", "precision", "defects_lost")
CASES = ("as drawn", "good +0.25", "a kind x0.5", "no good", "no good, a kind x0.5", "no good, a kind x0.35")


@dataclass(frozen=True)
class Clustered:
    """Regions in clusters: labels, scores, areas, and which are of good images."""

    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    is_good: np.ndarray


def print_runs(folders: list[Path]) -> None:
    """One row per finished run and level."""
    print(f"| run | level | false alarms | {' | '.join(COLUMNS)} |\n| --- | --- | --- |{' --- |' * len(COLUMNS)}")
    for folder in folders:
        results = RunResults.load(folder / "results.npz")
        for level, report in (score(results, results.slot_names) or {}).items():
            cells = ["" if (share := report["normal"][name]) is None else f"{share:.3f}" for name in COLUMNS]
            print(f"| {folder.name} | {level} | {report['normal']['false_alarms']} | {' | '.join(cells)} |")


def clustered_cases(batch: NcdBatch, num_classes: int) -> Iterator[tuple[str, Clustered]]:
    """Ward's clusters of a data set as it was drawn, and with other scores or without good images."""
    target, areas = batch.region_class_id.numpy(), batch.region_area.numpy()  # type: ignore[union-attr]
    rows = F.normalize(batch.region_feature, dim=1)  # type: ignore[arg-type]
    for case, count in product(CASES, (num_classes - 1, num_classes, num_classes + 2)):
        scores, case_areas = batch.region_score.numpy().copy(), areas
        if case == "good +0.25":
            scores[target == 0] += 0.25
            case_areas = np.where(target == 0, np.maximum(areas, 5), areas)
        if " x" in case:
            scores[target == 1] *= float(case.split(" x")[1])
        kept = target > 0 if case.startswith("no good") else target >= 0
        labels = cluster_features(rows[torch.as_tensor(kept)], count)
        yield case, Clustered(labels, scores[kept], case_areas[kept], target[kept] == 0)


def print_clusters(cases: list[tuple[str, Clustered]]) -> None:
    """For each pair of limits and each case: how often a cluster is called normal, and is mostly good."""
    print("| least separation | highest score | case | called normal | mostly good | share of good regions in it |")
    print("| --- | --- | --- | --- | --- | --- |")
    for separation, highest, case in product((0.8, 0.9, 0.95), (0.2, 0.3, 0.4, 0.5), CASES):
        called, right, held = [], [], []
        for each in (clustered for name, clustered in cases if name == case):
            found = find_normal_cluster(each.labels, each.scores, each.areas, separation, highest)
            members = np.zeros(len(each.labels), bool) if found is None else each.labels == found
            called.append(found is not None)
            right.append(found is not None and each.is_good[members].mean() > 0.5)
            if right[-1]:
                held.append(each.is_good[members].sum() / each.is_good.sum())
        share = f"{np.mean(held):.0%}" if held else ""
        print(f"| {separation} | {highest} | {case} | {np.mean(called):.0%} | {np.mean(right):.0%} | {share} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="finished runs with labels")
    parser.add_argument("--weights", type=Path, help="DeiT-Tiny weights")
    parser.add_argument("--output", type=Path, default=Path("runs/normal_clusters"))
    options = parser.parse_args()
    if options.runs:
        print_runs(options.runs)
    if options.weights:
        models = [
            AnomalyNcd(backbone="deit_tiny_patch16_224", backbone_weights=options.weights),
            AnomalyNcd(backbone="offline"),
        ]
        cases: list[tuple[str, Clustered]] = []
        for data, model in product(generated_sets(options.output), models):
            datamodule = data.datamodule()
            datamodule.setup()
            cases += clustered_cases(describe(model, datamodule), data.num_classes)
        print_clusters(cases)


if __name__ == "__main__":
    main()
