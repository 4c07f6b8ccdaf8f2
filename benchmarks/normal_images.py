# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What comparing regions with normal images brings: Ward's clusters with and without, on choices of classes.

    python benchmarks/normal_images.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/normal_images

The choices are those of ``number_of_classes.py``: 3 to 12 classes of real good tiles with defects painted on them,
which have other good tiles as normal images, and 2 to 6 classes of Magnetic Tile Defect, with its good training tiles;
equal classes and 10:1. Both ways cluster the same regions into the true number of classes, or into the estimated one.
Scores are region level; features are kept in ``--output``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from class_count_data import Case, mtd_pool, painted_pool
from number_of_classes import BACKBONES, drawn_cases, mtd_cases

from anomalib_ncd.metrics.report import clustering_report, nmi
from anomalib_ncd.models.clustering.clustering import cluster_features
from anomalib_ncd.models.clustering.number_of_classes import estimate_num_classes

SCORES = ("nmi", "ari", "accuracy")
ESTIMATED = ("nmi, number estimated", "number within one", "error")
HEADER = ("network", "cases", "normal images", *SCORES, *ESTIMATED, "nmi not below")


def clusters_scored(case: Case) -> list[float]:
    """Scores of Ward's clusters, NMI with the estimated number of classes, and the error of that number."""
    report = clustering_report(cluster_features(case.features, case.true_count), case.labels)
    estimate = estimate_num_classes(case.features).count
    with_estimate = nmi(cluster_features(case.features, estimate), case.labels)
    return [*(report[score] for score in SCORES), with_estimate, estimate - case.true_count]


def all_cases(options: argparse.Namespace, backbone: str, *, normal: bool) -> dict[str, list[Case]]:
    """Cases of both kinds; the same regions with normal images and without."""
    weights = None if backbone == "offline" else options.weights
    cases: dict[str, list[Case]] = {"painted": []}
    for seed in options.painted_seeds:
        pool = painted_pool(options.output, options.data, seed, backbone, weights, normal=normal)
        cases["painted"] += [*drawn_cases(pool, seed, "painted"), *drawn_cases(pool, seed + 100, "painted")]
    cases["MTD"] = list(mtd_cases(mtd_pool(options.output, options.data, backbone, weights, normal=normal)))
    return cases


def main() -> None:
    """Print a row for each network, kind of case and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mtd, mtd_anomaly_maps and steel_base")
    parser.add_argument("--weights", type=Path, required=True, help="DeiT-Tiny weights")
    parser.add_argument("--output", type=Path, default=Path("runs/normal_images"))
    parser.add_argument("--painted_seeds", nargs="*", type=int, default=[1])
    options = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    for title, backbone in BACKBONES.items():
        without, with_normal = (all_cases(options, backbone, normal=normal) for normal in (False, True))
        for kind in without:
            plain, compared = (
                np.array([clusters_scored(case) for case in cases[kind]]) for cases in (without, with_normal)
            )
            not_below = f"{(compared[:, 0] >= plain[:, 0]).mean():.0%}"
            for way, rows, share in (("no", plain, ""), ("yes", compared, not_below)):
                means = " | ".join(f"{mean:.3f}" for mean in rows[:, :4].mean(axis=0))
                within, error = (abs(rows[:, 4]) <= 1).mean(), rows[:, 4].mean()
                print(f"| {title} | {kind} | {way} | {means} | {within:.0%} | {error:+.1f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
