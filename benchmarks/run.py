# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Measure cases and add the figures to ``benchmarks/results``.

    python benchmarks/run.py                                   # list the cases
    python benchmarks/run.py discovery-plates-lite-cluster
    python benchmarks/run.py 'discovery-mini-*' --data DATA --weights deit_tiny_patch16_224.safetensors --seeds 0 1 2
    python benchmarks/run.py default-run help --data DATA --baseline ../other_checkout
    python benchmarks/tables.py                                # write the tables of the docs

DATA holds ``mtd``, ``mtd_anomaly_maps``, ``mtd_mini.txt``, ``steel_base``, ``steel_base_mini.txt``, ``transistor`` and
``deeppcb``, of which a case needs its own. Figures are added to the earlier ones; the docs show the newest ones.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import corrections
import deploy
import detectors
import regions
import rows
import scores
import speed
from cases import CASES, DETECTORS, Case, Setup

RESULTS = Path(__file__).parent / "results"
Measure = Callable[[Case, Setup], dict[str, float]]


def _of_setup(function: Callable[..., dict[str, float]], choice: str) -> Measure:
    """A measure that needs no more than a word of the case."""
    return lambda _, setup: function(choice, setup)


def _regions(method: str, case: Case, setup: Setup) -> dict[str, float]:
    """What the region stage finds."""
    samples = regions.read_samples(case.data, setup.data)
    return regions.measure(samples, regions.METHODS[method], has_masks=case.data != "deeppcb")


MEASURES: dict[str, Measure] = {
    "discovery": scores.discovery,
    "number_of_classes": scores.number_of_classes,
    "held_out": scores.held_out,
    "unknown": scores.unknown,
    "corrections": corrections.corrections,
    "refine_seconds": corrections.refine_seconds,
    "mebin": speed.mebin,
    "help_seconds": speed.help_seconds,
    "default_run": speed.default_run,
    **{f"regions_{method}": partial(_regions, method) for method in regions.METHODS},
    **{f"regions_speed_{method}": partial(regions.speed, method) for method in regions.METHODS},
    **{f"detector_{kind}": partial(detectors.measure, kind) for kind in DETECTORS},
    **{f"many_{way}": _of_setup(deploy.many, way) for way in ("stream", "folder")},
    **{f"latency_{runtime}": _of_setup(deploy.latency, runtime) for runtime in ("eager", "onnx", "openvino")},
}


def chosen(patterns: list[str]) -> list[Case]:
    """Cases by name or pattern.

    Raises:
        ValueError: If a pattern fits none.
    """
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in CASES):
            msg = f"No case fits {pattern!r}; `python benchmarks/run.py` lists them."
            raise ValueError(msg)
    return [case for name, case in CASES.items() if any(fnmatch(name, pattern) for pattern in patterns)]


def measure(case: Case, setup: Setup) -> list[rows.Row]:
    """Measure a case with a seed."""
    before = sum(os.times()[:4])  # of this process and those that it started
    found = MEASURES[case.measure](case, setup)
    seconds = f"{sum(os.times()[:4]) - before:.1f}"
    commit, machine = rows.current_commit(), rows.machine()
    day = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
    return [
        rows.Row(case.name, str(setup.seed), metric, round(value, 4), "", commit, day, seconds, machine)
        for metric, value in found.items()
    ]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names or patterns; none lists all")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, help="weights of DeiT-Tiny; timm's by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--max_epochs", type=int, default=50)
    parser.add_argument("--baseline", type=Path, help="another checkout, to compare speed with")
    parser.add_argument("--keep", type=Path, help="folder in which runs stay, to be taken up again at the same commit")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.cases:
        print("\n".join(CASES))
        return
    if options.keep is not None and rows.current_commit().endswith("+"):
        parser.error("--keep takes up runs of a commit, but the package has changes that aren't committed.")
    for case in chosen(options.cases):
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                kept = None if options.keep is None else options.keep / rows.current_commit() / f"{case.name}_{seed}"
                work = kept or Path(temporary)
                work.mkdir(parents=True, exist_ok=True)
                setup = Setup(options.data, options.weights, work, seed, options.max_epochs, options.baseline)
                found = measure(case, setup)
            rows.append(options.output / f"{case.topic}.csv", found)
            figures = ", ".join(f"{row.metric} {row.value:g}" for row in found)
            print(f"{case.name}, seed {seed}: {figures} ({found[0].processor_seconds} s of the processor)", flush=True)


if __name__ == "__main__":
    main()
