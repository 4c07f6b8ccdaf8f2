# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What is measured of time and memory, and what it is compared with in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from cases import Case, Setup
from regions import read_grey

from anomalib_ncd.regions.mebin import binarize_batch, build_sweep, fit_score_range, normalize_anomaly_map

NUM_MAPS = 32
REPEATS = 3


def mebin(case: Case, setup: Setup) -> dict[str, float]:
    """Milliseconds a map on one thread: this package's sweep, and the literal one of the paper, in turns."""
    size = int(case.name.rsplit("-", 1)[1])
    if case.data == "real":
        maps, score_range = _real_maps(setup, size)
    else:
        maps, score_range = _noise_maps(size, sigma=2.0 if case.data == "smooth noise" else 0.0), (0.0, 1.0)
    for anomaly_map in maps[:4]:
        assert build_sweep(anomaly_map, score_range).count_all().tolist() == _literal(anomaly_map, score_range)
    cv2.setNumThreads(1)
    own: list[float] = []
    literal: list[float] = []
    for _ in range(REPEATS):
        own.append(_seconds(lambda: binarize_batch(maps, score_range, num_threads=1)))
        literal.append(_seconds(lambda: [_literal(each, score_range) for each in maps]))
    found = {"ms": 1e3 * min(own) / NUM_MAPS, "literal_ms": 1e3 * min(literal) / NUM_MAPS}
    return found | {"ratio": found["literal_ms"] / found["ms"]}


def _literal(anomaly_map: np.ndarray, score_range: tuple[float, float]) -> list[int]:
    """Sweep as the paper words it: threshold, erode and count, 64 times."""
    normalised = normalize_anomaly_map(anomaly_map, score_range)
    kernel = np.ones((6, 6), dtype=np.uint8)
    eroded = (cv2.erode((normalised > t).astype(np.uint8), kernel) for t in range(255, 0, -4))
    return [cv2.connectedComponents(mask, connectivity=8)[0] - 1 for mask in eroded]


def _real_maps(setup: Setup, size: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Maps of Magnetic Tile Defect, evenly over the folder, and the score range of all of them."""
    if setup.data is None:
        msg = "Real maps need `--data`, a folder with `mtd_anomaly_maps`."
        raise FileNotFoundError(msg)
    maps = [read_grey(path) for path in sorted((setup.data / "mtd_anomaly_maps").rglob("*.png"))]
    chosen = [maps[index] for index in np.linspace(0, len(maps) - 1, NUM_MAPS).astype(int)]
    return np.stack([cv2.resize(each, (size, size)) for each in chosen]), fit_score_range(maps)


def _noise_maps(size: int, sigma: float) -> np.ndarray:
    """Noise over the whole map and the whole range: components everywhere at every threshold."""
    noise = np.random.default_rng(0).random((NUM_MAPS, size, size), dtype=np.float32)
    if sigma:
        noise = np.stack([cv2.GaussianBlur(sample, (0, 0), sigma) for sample in noise])
    low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
    return (noise - low) / (high - low)


def _seconds(function: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def help_seconds(case: Case, setup: Setup) -> dict[str, float]:
    """Seconds of the processor before the help is printed, and those of another checkout."""
    return compare(case, setup, lambda _: ["discover", "--help"], REPEATS)


def default_run(case: Case, setup: Setup) -> dict[str, float]:
    """Seconds of the processor of a default run as a whole, and those of another checkout."""
    if setup.data is None:
        msg = f"The case {case.name!r} needs `--data`, a folder with `mtd` and `mtd_anomaly_maps`."
        raise FileNotFoundError(msg)
    data = setup.data.resolve()
    flags = ["discover", "--images", str(data / "mtd" / "test"), "--anomaly_maps", str(data / "mtd_anomaly_maps")]
    flags += ["--image_list", str(data / "mtd_mini.txt"), "--backbone", "offline", "--num_novel_classes", "6"]
    flags += ["--labels", "folders", "--accelerator", "cpu", "--max_epochs", str(setup.max_epochs)]
    return compare(case, setup, lambda output: [*flags, "--output", str(output)], 1)


def compare(case: Case, setup: Setup, arguments: Callable[[Path], Sequence[str]], repeats: int) -> dict[str, float]:
    """Least seconds of the processor of a command in this checkout and in the baseline, in turns."""
    checkouts = {"": Path(__file__).parents[1]} | ({"baseline_": setup.baseline} if setup.baseline else {})
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    for repeat in range(repeats):
        for name, checkout in checkouts.items():
            output = setup.work / f"{case.name}_{name}{repeat}"
            seconds[name].append(_run_command(checkout, arguments(output), setup.work / "log.txt"))
    found = {f"{name}seconds": min(each) for name, each in seconds.items()}
    return found | ({"ratio": found["seconds"] / found["baseline_seconds"]} if setup.baseline else {})


def _run_command(checkout: Path, arguments: Sequence[str], log: Path) -> float:
    """Seconds of the processor of the command of a checkout."""
    command = [sys.executable, "-c", "from anomalib_ncd.cli.main import main; main()", *arguments]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    # Python looks into the folder that it is called from first.
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=checkout)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        msg = f"{' '.join(command)} failed in {checkout}:\n{log.read_text(encoding='utf-8')[-2000:]}"
        raise RuntimeError(msg)
    return usage.ru_utime + usage.ru_stime
