# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd demo``: the whole way on images that the command draws itself, without network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace


def add_demo_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``demo``."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="Folder for images and results.")
    parser.add_argument(
        "--method",
        type=Literal["cluster", "train"],
        default="cluster",
        help="Sort regions by their frozen features, which is best on these images, or train.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of images and training.")


def run_demo(config: Namespace) -> None:
    """Run ``demo`` with parsed flags."""
    from anomalib_ncd.runs import demo

    demo.run_demo(config.output, config.method, config.seed)
