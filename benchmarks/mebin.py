# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What MEBin costs and what its masks are worth. The numbers and the figure of docs/mebin.md come from here.

    python benchmarks/mebin.py speed --maps ../shared/data/mtd_anomaly_maps
    python benchmarks/mebin.py quality --data ../shared/data --figure runs/mebin_mtd.png
    python benchmarks/mebin.py figure --output docs/images/mebin.jpg

``speed`` takes this package's MEBin, the literal sweep (64 times threshold, erode, count, in OpenCV) and anomalib's own
``mebin_binarize`` in turns, so that a busy machine slows all of them down alike; look at the ratios. Each time is the
best of the repeats. OpenCV has two functions that count components; the one with statistics is several times slower.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from anomalib.post_processing.mebin import mebin_binarize
from mebin_quality import draw_generated_figure, draw_mtd_figure, quality_table, read_grey

from anomalib_ncd.post_processing import MEBin
from anomalib_ncd.regions.mebin import binarize_batch, component_counts, fit_score_range, normalize_anomaly_map

ScoreRange = tuple[float, float]
CountFunction = Callable[..., Sequence[Any]]
COUNT_FUNCTIONS: dict[str, CountFunction] = {
    "connectedComponents": cv2.connectedComponents,
    "connectedComponentsWithStats": cv2.connectedComponentsWithStats,
}


def literal_counts(anomaly_map: np.ndarray, score_range: ScoreRange, count: CountFunction) -> list[int]:
    """Sweep as the paper words it: threshold, erode and count, 64 times."""
    normalised = normalize_anomaly_map(anomaly_map, score_range)
    kernel = np.ones((6, 6), dtype=np.uint8)
    eroded = (cv2.erode((normalised > t).astype(np.uint8), kernel) for t in range(255, 0, -4))
    return [count(mask, connectivity=8)[0] - 1 for mask in eroded]


def real_maps(folder: Path, number: int, size: int) -> tuple[np.ndarray, ScoreRange]:
    """Read maps evenly over a folder, and the score range of all of them."""
    paths = sorted(folder.rglob("*.png"))
    maps = [read_grey(path) for path in paths]
    chosen = [maps[index] for index in np.linspace(0, len(maps) - 1, number).astype(int)]
    resized = [cv2.resize(chosen_map, (size, size), interpolation=cv2.INTER_LINEAR) for chosen_map in chosen]
    return np.stack(resized), fit_score_range(maps)


def noise_maps(number: int, size: int, sigma: float) -> tuple[np.ndarray, ScoreRange]:
    """Noise over the whole map and the whole range, plain or smooth: components everywhere at every threshold."""
    noise = np.random.default_rng(0).random((number, size, size), dtype=np.float32)
    if sigma:
        noise = np.stack([cv2.GaussianBlur(sample, (0, 0), sigma) for sample in noise])
    low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
    return (noise - low) / (high - low), (0.0, 1.0)


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_case(maps: np.ndarray, score_range: ScoreRange, threads: int, repeats: int) -> list[float]:
    """Return seconds a map of this package, then of the literal sweep with each count function, in turns."""

    def ours() -> None:
        binarize_batch(maps, score_range, num_threads=threads)

    def literal(count: CountFunction) -> Callable[[], None]:
        def run() -> None:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda anomaly_map: literal_counts(anomaly_map, score_range, count), maps))

        return run

    functions = [ours, *(literal(count) for count in COUNT_FUNCTIONS.values())]
    ours()
    rounds = [[seconds(function) for function in functions] for _ in range(repeats)]
    return [min(times) / len(maps) for times in zip(*rounds, strict=True)]


def time_host(maps: np.ndarray, number: int) -> float:
    """Return seconds a map of anomalib's own function, one map a call."""
    batches = torch.from_numpy(maps[:number].astype(np.float32))[:, None]
    return seconds(lambda: [mebin_binarize(batch[None]) for batch in batches]) / number


def speed(args: argparse.Namespace) -> None:
    """Print the table of times."""
    all_cores = os.cpu_count() or 1
    print(f"{all_cores} cores, load {os.getloadavg()[0]:.1f} at the start. Milliseconds a map.\n")
    literals = " | ".join(f"literal, {name} | ratio" for name in COUNT_FUNCTIONS)
    print(f"| maps | size | threads | MEBin | {literals} | anomalib's | ratio |")
    print("|" + " --- |" * 10)
    for name, size in [(name, size) for size in (256, 512) for name in ("real", "noise", "smooth noise")]:
        if name == "real":
            maps, score_range = real_maps(args.maps, args.number, size)
        else:
            maps, score_range = noise_maps(args.number, size, 2.0 if name == "smooth noise" else 0.0)
        for anomaly_map in maps[:4]:
            expected = literal_counts(anomaly_map, score_range, cv2.connectedComponents)
            assert component_counts(anomaly_map, score_range).tolist() == expected
        for threads in sorted({1, all_cores}):
            cv2.setNumThreads(1)
            torch.set_num_threads(threads)
            own, *literal = time_case(maps, score_range, threads, args.repeats)
            cells = [name, f"{size}²", str(threads), f"{own * 1e3:.2f}"]
            for other in literal:
                cells += [f"{other * 1e3:.1f}", f"{other / own:.1f}x"]
            # anomalib's takes minutes a map: one case is enough.
            if args.host_maps and threads == 1 and size == 256 and name == "real":
                host = time_host(maps, args.host_maps)
                cells += [f"{host * 1e3:,.0f}", f"{host / own:,.0f}x"]
            else:
                cells += ["", ""]
            print("| " + " | ".join(cells) + " |", flush=True)
    if torch.cuda.is_available():
        time_cuda(*real_maps(args.maps, args.number, 256), args.repeats)


def time_cuda(maps: np.ndarray, score_range: ScoreRange, repeats: int) -> None:
    """Print what a batch on a CUDA device costs beside the same batch on the host, and beside its copies."""
    post_processor = MEBin(score_range=score_range)
    on_host = torch.from_numpy(maps.astype(np.float32))
    on_device, mask = on_host.cuda(), torch.zeros(on_host.shape, dtype=torch.bool)

    def timed(function: Callable[[], object]) -> float:
        def synchronised() -> None:
            function()
            torch.cuda.synchronize()

        synchronised()
        return min(seconds(synchronised) for _ in range(repeats)) * 1e3

    host = timed(lambda: post_processor.binarize(on_host))
    device = timed(lambda: post_processor.binarize(on_device))
    copies = timed(lambda: (on_device.cpu(), mask.cuda()))
    print(f"\nA batch of {len(maps)} on {torch.cuda.get_device_name()}: {device:.2f} ms; on the host {host:.2f} ms, ")
    print(f"its copies alone {copies:.2f} ms.")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("speed", help="times and ratios")
    command.add_argument("--maps", type=Path, required=True, help="folder of real anomaly maps, 8-bit PNG")
    command.add_argument("--number", type=int, default=32, help="maps a batch")
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--host_maps", type=int, default=1, help="maps for anomalib's own function; 0 leaves it out")
    command.set_defaults(run=speed)
    command = commands.add_parser("quality", help="masks against ground truth, beside other thresholds")
    command.add_argument("--data", type=Path, required=True, help="folder with mtd and mtd_anomaly_maps")
    command.add_argument("--figure", type=Path, help="file for a figure of masks on these images")
    command.add_argument("--seed", type=int, default=0, help="of the split")
    command.set_defaults(run=quality)
    command = commands.add_parser("figure", help="masks on generated images")
    command.add_argument("--output", type=Path, required=True)
    command.set_defaults(run=lambda args: draw_generated_figure(args.output))
    args = parser.parse_args()
    args.run(args)


def quality(args: argparse.Namespace) -> None:
    """Print the table of scores, and draw the figure if wanted."""
    print(quality_table(args.data, args.seed))
    if args.figure is not None:
        draw_mtd_figure(args.data, args.seed, args.figure)


if __name__ == "__main__":
    main()
