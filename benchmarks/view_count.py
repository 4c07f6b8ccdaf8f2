# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How many views to cache: scores on MTD-mini for several counts, against fresh views in every epoch.

In the paper's configuration but for the views.

    python benchmarks/view_count.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --figure docs/images/view_count.png

Runs that are done are not run again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from discovery import SCORES, data_arguments, run, spread
from matplotlib import pyplot as plt

COUNTS = ["2", "4", "8", "16", "32", "null"]


def draw(results: dict[str, list[dict[str, float]]], file: Path) -> None:
    """Draw each seed's scores and their mean over the number of views."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    labels = ["fresh" if count == "null" else count for count in results]
    for axis, score in zip(axes, ("nmi", "ari", "accuracy"), strict=True):
        values = [[result[score] for result in runs] for runs in results.values()]
        axis.plot(labels, values, "o", color="#8fb8cc", markersize=4)
        axis.plot(labels, [statistics.mean(each) for each in values], color="#0b6e99")
        axis.set(title={"nmi": "NMI", "ari": "ARI"}.get(score, score), xlabel="views per region", ylim=(0, 0.6))
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Run all counts and seeds, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mtd, mtd_anomaly_maps and steel_base")
    parser.add_argument("--weights", type=Path, required=True, help="DeiT-Tiny weights")
    parser.add_argument("--output", type=Path, default=Path("runs/view_count"))
    parser.add_argument("--counts", nargs="+", default=COUNTS, help="null for fresh views")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max_epochs", type=int, default=50)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--figure", type=Path, help="file of the figure")
    options = parser.parse_args()
    flags = [*data_arguments(options.data, "mini"), "--backbone", "deit_tiny_patch16_224"]
    flags += [
        "--backbone_weights",
        str(options.weights),
        "--training.merging_temperature",
        "50",
        "--accelerator",
        "cpu",
    ]
    flags += ["--preset", "paper", "--precision", options.precision, "--max_epochs", str(options.max_epochs)]
    results: dict[str, list[dict[str, float]]] = {}
    print("| views | NMI | ARI | accuracy | macro-F1 |\n| --- | --- | --- | --- | --- |")
    for count in options.counts:
        results[count] = [
            run(
                [*flags, "--training.num_cached_views", count, "--seed", str(seed)],
                options.output / f"{count}_views_seed{seed}",
            )
            for seed in options.seeds
        ]
        cells = " | ".join(spread([result[score] for result in results[count]]) for score in SCORES)
        print(f"| {'fresh' if count == 'null' else count} | {cells} |", flush=True)
    if options.figure:
        draw(results, options.figure)


if __name__ == "__main__":
    main()
