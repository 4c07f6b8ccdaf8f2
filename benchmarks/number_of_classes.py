# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How well the number of classes is estimated from frozen features, and what a wrong number costs.

    python benchmarks/number_of_classes.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --figure docs/images/number_of_classes.png

Three kinds of cases: choices of 3 to 12 classes of generated plates, the same of real good tiles with defects painted
on them, and choices of 2 to 6 classes of Magnetic Tile Defect (MTD); each with equal classes and with the largest ten
times as large as the smallest. The estimate was chosen on seeds 0 and 1 of the first kind and on seed 0 of the second;
the defaults are others. Scores are those of Ward's clusters, region level. Features are kept in ``--output``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from class_count_data import IMBALANCE, Case, Pool, generated_pool, mtd_pool, painted_pool
from class_count_methods import METHODS
from matplotlib import pyplot as plt

from anomalib_ncd.metrics.report import nmi
from anomalib_ncd.models.clustering.clustering import cluster_features
from anomalib_ncd.models.clustering.number_of_classes import estimate_num_classes

BACKBONES = {"DeiT-Tiny": "deit_tiny_patch16_224", "EfficientNet-Lite0": "offline"}
GENERATED_COUNTS = (3, 4, 5, 6, 7, 8, 10, 12)
MTD_CHOICES = 6


@dataclass(frozen=True)
class Outcome:
    """What a method made of a case."""

    true_count: int
    count: int
    nmi_loss: float
    inside: bool | None = None
    width: int = 0


def cut(pool: Pool, classes: Sequence[int], rng: np.random.Generator, name: str, *, balanced: bool) -> Case:
    """Take regions of some classes: equally many, or ten times as many of the first as of the last."""
    available = np.array([np.sum(pool.labels == label) for label in classes])
    if balanced:
        sizes = np.full(len(classes), rng.integers(max(8, available.min() // 3), available.min() + 1))
    else:
        ratios = np.geomspace(1, 1 / IMBALANCE, len(classes))
        sizes = np.minimum(np.maximum(3, np.round(ratios * available[0])), available).astype(int)
    rows = np.concatenate(
        [
            rng.choice(np.flatnonzero(pool.labels == label), size, replace=False)
            for label, size in zip(classes, sizes, strict=True)
        ],
    )
    base, base_labels = pool.base_features, pool.base_labels
    if not len(base):  # other kinds of the same pool
        others = rng.permutation(np.setdiff1d(pool.labels, classes))[:4]
        is_other = np.isin(pool.labels, others)
        base, base_labels = pool.features[is_other], pool.labels[is_other]
    return Case(name, pool.features[rows], pool.labels[rows], base, base_labels)


def drawn_cases(pool: Pool, seed: int, name: str) -> Iterator[Case]:
    """Random choices of kinds, with good regions among them half of the time."""
    rng = np.random.default_rng(seed)
    good = pool.class_names.index("good")
    kinds = np.setdiff1d(np.arange(len(pool.class_names)), [good])
    for count in GENERATED_COUNTS:
        for balanced in (True, False):
            classes = rng.choice(kinds, count, replace=False)
            if rng.random() < 0.5:
                classes[rng.integers(count)] = good
            yield cut(pool, classes.tolist(), rng, name, balanced=balanced)


def mtd_cases(pool: Pool) -> Iterator[Case]:
    """Up to six choices of each number of classes, equal and 10:1 in random order, and the whole set as it is."""
    rng = np.random.default_rng(0)
    labels = np.unique(pool.labels)
    for count in range(2, len(labels) + 1):
        choices = list(combinations(labels, count))
        for classes in rng.permutation(choices)[:MTD_CHOICES]:
            for balanced in (True, False):
                yield cut(pool, rng.permutation(classes).tolist(), rng, "MTD", balanced=balanced)
    yield Case("MTD", pool.features, pool.labels, pool.base_features, pool.base_labels)


def score(case: Case, count: int) -> float:
    """NMI of Ward's clusters."""
    return nmi(cluster_features(case.features, count), case.labels)


def outcome(case: Case, method: str) -> Outcome:
    """Run a method on a case."""
    if method == "chosen":
        estimate = estimate_num_classes(case.features)
        inside = estimate.low <= case.true_count <= estimate.high
        loss = score(case, case.true_count) - score(case, estimate.count)
        return Outcome(case.true_count, estimate.count, loss, inside, estimate.high - estimate.low + 1)
    count = METHODS[method](case)
    return Outcome(case.true_count, count, score(case, case.true_count) - score(case, count))


def table_row(method: str, outcomes: dict[str, list[Outcome]]) -> str:
    """A row of the Markdown table: exact and within one in percent, NMI lost, for each kind of case."""
    cells = []
    for found in outcomes.values():
        error = np.array([each.count - each.true_count for each in found])
        lost = np.mean([each.nmi_loss for each in found])
        cells.append(f"{np.mean(error == 0):.0%} / {np.mean(abs(error) <= 1):.0%} | {error.mean():+.1f} | {lost:+.3f}")
    return f"| {method} | {' | '.join(cells)} |"


def range_line(outcomes: dict[str, list[Outcome]]) -> str:
    """How often the range holds the truth, and how wide it is."""
    return "; ".join(
        f"{kind}: {np.mean([bool(each.inside) for each in found]):.0%} of {len(found)} cases, "
        f"{np.mean([each.width for each in found]):.1f} numbers wide"
        for kind, found in outcomes.items()
    )


def draw(outcomes: dict[str, dict[str, list[Outcome]]], file: Path) -> None:
    """Draw the estimate against the truth, one panel per backbone and kind of case."""
    kinds = list(next(iter(outcomes.values())))
    figure, axes = plt.subplots(
        len(outcomes), len(kinds), figsize=(3.2 * len(kinds), 3.2 * len(outcomes)), layout="constrained", squeeze=False
    )
    for row, (backbone, by_kind) in zip(axes, outcomes.items(), strict=True):
        for axis, (kind, found) in zip(row, by_kind.items(), strict=True):
            truth = np.array([each.true_count for each in found])
            count = np.array([each.count for each in found])
            top = max(13, int(count.max()) + 1)
            axis.fill_between([1, top], [0, top - 1], [2, top + 1], color="#0b6e99", alpha=0.12, linewidth=0)
            pairs, times = np.unique(np.stack([truth, count]), axis=1, return_counts=True)
            axis.scatter(*pairs, s=14 + 30 * times / times.max() * 4, color="#0b6e99", alpha=0.65, linewidth=0)
            axis.set(title=f"{kind}, {backbone}", xlabel="classes", ylabel="estimate", xlim=(1, top), ylim=(1, top))
            axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Compute features where they are missing, print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mtd, mtd_anomaly_maps and steel_base")
    parser.add_argument("--weights", type=Path, required=True, help="DeiT-Tiny weights")
    parser.add_argument("--output", type=Path, default=Path("runs/number_of_classes"))
    parser.add_argument("--generated_seeds", nargs="*", type=int, default=[2, 3])
    parser.add_argument("--painted_seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--without_mtd", action="store_true", help="for choosing: MTD is for reporting alone")
    parser.add_argument("--figure", type=Path, help="file of the figure")
    options = parser.parse_args()
    chosen: dict[str, dict[str, list[Outcome]]] = {}
    for title, backbone in BACKBONES.items():
        weights = None if backbone == "offline" else options.weights
        cases: dict[str, list[Case]] = {"generated": [], "painted": []}
        for seed in options.generated_seeds:
            cases["generated"] += drawn_cases(
                generated_pool(options.output, seed, backbone, weights), seed, "generated"
            )
        for seed in options.painted_seeds:
            pool = painted_pool(options.output, options.data, seed, backbone, weights)
            cases["painted"] += [*drawn_cases(pool, seed, "painted"), *drawn_cases(pool, seed + 100, "painted")]
        if not options.without_mtd:
            cases["MTD"] = list(mtd_cases(mtd_pool(options.output, options.data, backbone, weights)))
        cases = {kind: found for kind, found in cases.items() if found}
        print(f"\n{title}: {', '.join(f'{len(found)} {kind}' for kind, found in cases.items())} cases")
        for method in options.methods:
            outcomes = {kind: [outcome(case, method) for case in found] for kind, found in cases.items()}
            print(table_row(method, outcomes), flush=True)
            if method == "chosen":
                chosen[title] = outcomes
                print(f"Range: {range_line(outcomes)}")
    if options.figure and chosen:
        draw(chosen, options.figure)


if __name__ == "__main__":
    main()
