# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a classifier on the line takes and stands. The numbers of docs/deploy.md come from here.

    python benchmarks/deploy.py stages --data ../shared/data
    python benchmarks/deploy.py compression --data ../shared/data
    python benchmarks/deploy.py many
    python benchmarks/deploy.py faults --data ../shared/data

``stages`` has two tables: the steps that are no network, on all test images with their saved maps; and the whole way
with a small Patchcore, in PyTorch, ONNX Runtime and OpenVINO. Detector and runs are made in the output folder first,
once. ``--weights`` takes DeiT-Tiny in the place of EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from deploy_compression import EXPORTS, compression_table
from deploy_endurance import faults_table, many_table
from deploy_setup import Setup
from deploy_stages import BETWEEN, STAGES, StageClock, classifier_of_maps, summary, time_images

from anomalib_ncd.deploy import AnomalyClassifier

RUNTIMES = ("eager", "onnx", "openvino")


def setup_of(args: argparse.Namespace) -> Setup:
    """What the flags say."""
    backbone = "offline" if args.weights is None else "deit_tiny_patch16_224"
    return Setup(args.data, args.output, backbone, args.weights, args.threads)


def stages(args: argparse.Namespace) -> None:
    """Print both tables of times."""
    clock = StageClock()
    classifier, paths = classifier_of_maps(args.data / "mtd" / "test", args.data / "mtd_anomaly_maps", clock)
    time_images(classifier, clock, paths, args.repeats)
    print(f"{len(paths)} images with saved maps, milliseconds an image, median / 99th percentile\n")
    print("| MEBin | crops | merge | together | mean |\n| --- | --- | --- | --- | --- |")
    together = clock.milliseconds(BETWEEN)
    cells = [summary(clock.milliseconds([stage])) for stage in BETWEEN]
    print("| " + " | ".join([*cells, summary(together), f"{together.mean():.2f}"]) + " |\n")
    setup = setup_of(args)
    chosen = setup.mini_images()[:: args.every]
    columns = ("runtime", *STAGES, "together", "images a second", f"in batches of {args.batch_size}")
    print(f"{len(chosen)} images, {setup.backbone}\n\n| {' | '.join(columns)} |\n|" + " --- |" * len(columns))
    for runtime in args.runtimes:
        clock = StageClock()
        rate = time_images(setup.classifier(runtime, clock), clock, chosen, args.repeats)
        cells = [summary(clock.milliseconds([stage])) for stage in STAGES]
        cells += [summary(clock.milliseconds(STAGES)), f"{rate:.1f}"]
        batched = setup.classifier(runtime, None, args.batch_size)
        cells.append(f"{max(batch_rate(batched, chosen) for _ in range(args.repeats)):.1f}")
        print("| " + " | ".join([runtime, *cells]) + " |", flush=True)


def batch_rate(classifier: AnomalyClassifier, paths: Sequence[Path]) -> float:
    """Images a second where several go through the networks together."""
    start = time.perf_counter()
    num_images = sum(1 for _ in classifier.stream(paths))
    return num_images / (time.perf_counter() - start)


def compression(args: argparse.Namespace) -> None:
    """Print the table of exports."""
    print(compression_table(setup_of(args), args.exports, args.every))


def many(args: argparse.Namespace) -> None:
    """Print memory and speed over many images."""
    print(many_table(args.output / "many", args.number))


def faults(args: argparse.Namespace) -> None:
    """Print time and memory of odd images."""
    setup = setup_of(args)
    setup.classifier("onnx")
    print(faults_table(args.output / f"packed_{setup.backbone}_onnx", args.output / "odd"))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("stages", stages), ("compression", compression), ("many", many), ("faults", faults)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--output", type=Path, default=Path("runs/deploy"))
        command.add_argument("--threads", type=int, default=os.cpu_count())
        if name == "many":
            command.add_argument("--number", type=int, default=20_000, help="images")
            continue
        command.add_argument("--data", type=Path, required=True, help="folder with mtd and mtd_anomaly_maps")
        command.add_argument("--weights", type=Path, help="of DeiT-Tiny; EfficientNet-Lite0 without")
        command.add_argument("--every", type=int, default=2, help="take every n-th image")
        if name == "stages":
            command.add_argument("--batch_size", type=int, default=8)
            command.add_argument("--repeats", type=int, default=3, help="times an image, of which the fastest counts")
            command.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
        if name == "compression":
            command.add_argument("--exports", nargs="+", choices=list(EXPORTS), default=list(EXPORTS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.run(args)


if __name__ == "__main__":
    main()
