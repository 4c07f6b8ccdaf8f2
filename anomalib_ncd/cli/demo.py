# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd demo``: the whole way on images that the command draws itself, without network."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.cli.discover import add_discover_arguments, run_discover
from anomalib_ncd.cli.nested_flags import CommandParser

logger = logging.getLogger(__name__)


def add_demo_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``demo``."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="Folder for images and results.")
    parser.add_argument(
        "--method",
        type=Literal["cluster", "train"],
        default="cluster",
        help="Compare regions with the good images and cluster them, or train with labelled base classes.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of images and training.")


def run_demo(config: Namespace) -> None:
    """Draw images with five kinds of defect and run ``discover`` on them."""
    from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

    data = generate_dataset(
        config.output / "data", num_train_good=20, num_per_kind=16, base_kinds=DEFECT_KINDS[5:9], seed=config.seed
    )
    logger.info("Drew images with %s in %s.", ", ".join(data.kinds), data.root)
    args = ["--images", data.test_dir, "--normal_images", data.train_good_dir, "--output", config.output]
    args += ["--labels", data.labels_csv, "--num_novel_classes", len(data.kinds) + 1]
    args += ["--backbone", "offline", "--method", config.method, "--seed", config.seed, "--accelerator", "cpu"]
    if config.method == "train":
        args += ["--base", data.root / "base", "--training.num_cached_views", 4]
    command = list(map(str, args))
    logger.info("What follows is: anomalib-ncd discover %s", shlex.join(command))
    parser = CommandParser()
    add_discover_arguments(parser)
    run_discover(parser.parse_args(command))
    logger.info(
        "Next, your own images: anomalib-ncd discover --images FOLDER --normal_images FOLDER_OF_GOOD_ONES "
        "--output runs/mine"
    )
