# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Whole discovery runs on Magnetic Tile Defect: scores, wall-clock time and peak memory.

Every run is ``anomalib-ncd discover`` in a process of its own, so time and memory include imports, MEBin, crops,
training and prediction. Runs that are done are not run again.

    python benchmarks/discovery.py --data ../shared/data \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/discovery
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SCORES = ("nmi", "ari", "accuracy", "macro_f1")
PEAK = ["--regions.peak_if_empty", "true"]
NORMAL = ["--normal_images", "{data}/mtd/train/good", "--base", "null"]
OTHER_TILES = ["--normal_images", "{output}/other_tiles", "--base", "null"]
GAP_BETWEEN_TILES = 80
METHODS = {
    "training": ["--method", "train"],
    "training, normal images": ["--method", "train", *NORMAL],
    "training, online views": ["--method", "train", "--training.num_cached_views", "null"],
    "training as in the paper": ["--preset", "paper"],
    "Ward, peaks": ["--method", "cluster", *PEAK],
    "Ward, normal images, peaks": ["--method", "cluster", *NORMAL, *PEAK],
    "training, normal images, peaks": ["--method", "train", *NORMAL, *PEAK],
    "Ward": ["--method", "cluster"],
    "Ward, one layer": ["--method", "cluster", "--training.feature_layers", "1"],
    "Ward, normal images": ["--method", "cluster", *NORMAL],
    "Ward, normal images, other tiles": ["--method", "cluster", *OTHER_TILES],
}


DEFAULT_METHODS = ["training", "Ward"]


def data_arguments(data: Path, name: str) -> list[str]:
    """Flags that choose MTD-mini or full MTD."""
    flags = [
        *["--images", str(data / "mtd" / "test"), "--anomaly_maps", str(data / "mtd_anomaly_maps")],
        *["--base", str(data / "steel_base"), "--labels", "folders", "--num_novel_classes", "6"],
    ]
    if name == "mini":
        flags += ["--image_list", str(data / "mtd_mini.txt"), "--base_list", str(data / "steel_base_mini.txt")]
    return flags


def link_other_tiles(data: Path, folder: Path) -> None:
    """Link the good training images of the tiles that no test image shows.

    A tile was photographed under several lightings, one after the other, and its images lie in both parts of the data
    set. Their names end with a number that counts up; where it makes a leap, another tile begins.
    """
    images = [*(data / "mtd" / "train" / "good").iterdir(), *(data / "mtd" / "test").rglob("*.jpg")]
    numbered = sorted((int(path.stem.rsplit("_", 1)[1]), path) for path in images)
    tiles: list[list[Path]] = []
    last = -math.inf
    for number, path in numbered:
        if number - last > GAP_BETWEEN_TILES:
            tiles.append([])
        tiles[-1].append(path)
        last = number
    folder.mkdir(parents=True, exist_ok=True)
    for tile in tiles:
        if all("train" in path.parts for path in tile):
            for path in tile:
                link = folder / path.name
                link.unlink(missing_ok=True)
                link.symlink_to(path.resolve())


def run_timed(arguments: Sequence[str], output: Path) -> dict[str, float]:
    """Run ``discover`` in a process of its own, if that isn't done yet; return its seconds and peak memory in MB."""
    timing_file = output / "timing.json"
    if not timing_file.is_file():
        command = [sys.executable, "-m", "anomalib_ncd.cli.main", "discover", *arguments, "--output", str(output)]
        output.parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        with output.with_suffix(".log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            msg = f"{' '.join(command)} failed; see {output.with_suffix('.log')}."
            raise RuntimeError(msg)
        timing = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1024,
        }
        timing_file.write_text(json.dumps(timing))
    return json.loads(timing_file.read_text())


def run(arguments: Sequence[str], output: Path) -> dict[str, float]:
    """Run ``discover`` in a process of its own; return seconds, peak memory in MB and image-level scores."""
    timing = run_timed(arguments, output)
    metrics = json.loads((output / "metrics.json").read_text())
    return timing | {score: metrics["image"][score] for score in SCORES}


def spread(values: Sequence[float]) -> str:
    """Mean and, for several values, standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def table_row(set_name: str, method: str, runs: Sequence[dict[str, float]]) -> str:
    """One row of the Markdown table."""
    scores = " | ".join(spread([result[score] for result in runs]) for score in SCORES)
    seconds, cpu_seconds = (statistics.median(run[name] for run in runs) for name in ("seconds", "cpu_seconds"))
    memory = max(result["peak_mb"] for result in runs)
    return (
        f"| {set_name} | {method} | {len(runs)} | {scores} | {seconds:.0f} | {cpu_seconds:.0f} | {memory / 1024:.2f} |"
    )


def build_parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """A parser of data, network and output folder, which the benchmarks of discovery have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mtd, mtd_anomaly_maps and steel_base")
    parser.add_argument("--backbone", default="deit_tiny_patch16_224", help="offline for EfficientNet-Lite0")
    parser.add_argument("--weights", type=Path, help="weights of the backbone, but for offline")
    parser.add_argument("--output", type=Path, default=Path(output))
    return parser


def main() -> None:
    """Run the chosen sets, methods and seeds and print the table."""
    parser = build_parser(__doc__, "runs/discovery")
    parser.add_argument("--sets", nargs="+", choices=["mini", "full"], default=["mini", "full"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=DEFAULT_METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max_epochs", type=int, default=50)
    options = parser.parse_args()

    model = ["--backbone", options.backbone]
    if options.weights:
        model += ["--backbone_weights", str(options.weights)]
    # 50 is the paper's merging temperature for MTD.
    model += ["--training.merging_temperature", "50", "--max_epochs", str(options.max_epochs), "--accelerator", "cpu"]
    print("| data | method | seeds | NMI | ARI | accuracy | macro-F1 | seconds | processor | peak GB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for set_name in options.sets:
        for method in options.methods:
            runs = []
            for seed in options.seeds:
                folder = options.output / f"{set_name}_{method.replace(' ', '_').replace(',', '')}_seed{seed}"
                if "{output}/other_tiles" in METHODS[method]:
                    link_other_tiles(options.data, options.output / "other_tiles")
                own = [flag.format(data=options.data, output=options.output) for flag in METHODS[method]]
                flags = [*data_arguments(options.data, set_name), *model, *own, "--seed", str(seed)]
                runs.append(run(flags, folder))
            print(table_row(set_name, method, runs), flush=True)


if __name__ == "__main__":
    main()
