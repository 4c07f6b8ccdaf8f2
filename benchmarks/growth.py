# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How time and memory of a whole run grow with the number of regions.

    python benchmarks/growth.py --output runs/growth --figure docs/images/growth.png

Draws images with one defect each and simulated maps, as many as the largest size asks for, and runs ``anomalib-ncd
discover`` on the first ones of each kind, every size in a process of its own. The backbone is timm's ``test_vit`` with
random weights, so that what grows is the work of this package, not the network's. Runs that are done are not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from discovery import run_timed
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from anomalib_ncd.synthetic.plates import DEFECT_KINDS, GeneratedDataset, generate_dataset

KINDS = DEFECT_KINDS[:5]
FLAGS = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--num_novel_classes", "5"]
FLAGS += ["--training.num_cached_views", "2", "--accelerator", "cpu"]


def draw_images(num_regions: int, folder: Path) -> GeneratedDataset:
    """Draw the images of the largest size."""
    return generate_dataset(
        folder,
        num_train_good=1,
        num_test_good=0,
        num_mixed=0,
        num_per_kind=num_regions // len(KINDS),
        size=128,
        anomaly_maps=True,
    )


def run_size(num_regions: int, data: GeneratedDataset, output: Path, max_epochs: int) -> dict[str, float]:
    """Run on the first images of each kind; return regions, seconds and peak memory in MB."""
    chosen = [path for kind in KINDS for path in sorted((data.test_dir / kind).iterdir())[: num_regions // len(KINDS)]]
    image_list = output / f"images_{num_regions}.txt"
    image_list.write_text("".join(f"{path.relative_to(data.test_dir)}\n" for path in chosen), encoding="utf-8")
    arguments = ["--images", str(data.test_dir), "--anomaly_maps", str(data.anomaly_maps_dir), *FLAGS]
    folder = output / f"run_{num_regions}"
    timing = run_timed([*arguments, "--image_list", str(image_list), "--max_epochs", str(max_epochs)], folder)
    timing["regions"] = sum(1 for _ in (folder / "regions.csv").open(encoding="utf-8")) - 1
    return timing


def draw(results: list[dict[str, float]], file: Path) -> None:
    """Draw time and memory over the number of regions, with the line through the first and the last point."""
    regions = np.array([result["regions"] for result in results])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, name, label, scale in (
        (axes[0], "cpu_seconds", "seconds of the processor", 1),
        (axes[1], "peak_mb", "peak memory, GB", 1024),
    ):
        values = np.array([result[name] for result in results]) / scale
        slope = (values[-1] - values[0]) / (regions[-1] - regions[0])
        axis.plot(regions, values[0] + slope * (regions - regions[0]), color="#bbbbbb", label="straight line")
        axis.plot(regions, values, "o-", color="#0b6e99", label="measured")
        axis.set(xlabel="regions", ylabel=label, ylim=(0, None), xlim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Run all sizes, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/growth"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 5000, 20000])
    parser.add_argument("--max_epochs", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="file of the figure")
    options = parser.parse_args()
    data = draw_images(max(options.sizes), options.output / "data")
    results = [run_size(size, data, options.output, options.max_epochs) for size in options.sizes]
    (options.output / "growth.json").write_text(json.dumps(results))
    print("| regions | seconds | of the processor | ms a region | peak GB |\n| --- | --- | --- | --- | --- |")
    for result in results:
        regions, seconds, cpu = int(result["regions"]), result["seconds"], result["cpu_seconds"]
        cells = (f"{regions:,}", f"{seconds:.0f}", f"{cpu:.0f}", f"{1e3 * cpu / regions:.1f}")
        print(f"| {' | '.join(cells)} | {result['peak_mb'] / 1024:.2f} |")
    if options.figure:
        draw(results, options.figure)


if __name__ == "__main__":
    main()
