# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd prepare``: published archives, put into the layout that ``discover`` reads."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.cli.command import Command

if TYPE_CHECKING:
    from anomalib_ncd.data.prepare import PreparedData

logger = logging.getLogger(__name__)

DATA_SETS = {
    "mtd": "Magnetic Tile Defect: folders MT_*/Imgs with .jpg images and .png masks",
    "aebad": "AeBAD-S: AeBAD_S/test/<class>/<domain> with ground_truth",
}


def _add_prepare(parser: ArgumentParser) -> None:
    """Add one subcommand per data set, with the arguments of its function."""
    subcommands = parser.add_subcommands()
    data_sets = {}
    for name, description in DATA_SETS.items():
        data_sets[name] = ArgumentParser(description=description + ".")
        data_sets[name].add_argument("raw", type=Path, help="Folder of the unpacked archive.")
        data_sets[name].add_argument("out", type=Path, help="Folder to write, new or empty.")
        subcommands.add_subcommand(name, data_sets[name], help=description)
    mtd, aebad = data_sets["mtd"], data_sets["aebad"]
    mtd.add_argument("--train_list", type=Path | None, help="Text file of the good images to train on.")
    mtd.add_argument("--train_ratio", type=float, default=0.8, help="Else their share, drawn at random.")
    mtd.add_argument("--seed", type=int, default=0, help="Seed of that draw.")
    aebad.add_argument("--domains", type=list[str] | None, help="Domains of test images; all by default.")


def _run_prepare(config: Namespace) -> None:
    """Prepare a data set, say what lies there and what to do next."""
    from anomalib_ncd.data.prepare import prepare_aebad, prepare_mtd

    name = config.subcommand
    data = prepare_mtd(**vars(config.mtd)) if name == "mtd" else prepare_aebad(**vars(config.aebad))
    logger.info("%s", summary(data))
    if data.empty_masks:
        text = "%d published masks are empty, such as %s; their images count as defects all the same."
        logger.warning(text, len(data.empty_masks), data.empty_masks[0])
    logger.info("%s", next_command(data, name))


def summary(data: PreparedData) -> str:
    """Count images and masks per class, in plain text."""
    width = max(len(name) for name in data.num_images)
    lines = []
    for name, count in data.num_images.items():
        split, _, class_name = name.partition("/")
        masks = data.num_masks.get(class_name, 0) if split == "test" else 0
        lines.append(f"{name:<{width}}  {count:>6} images" + (f", {masks} masks" if masks else ""))
    total = sum(data.num_images.values()) + sum(data.num_masks.values())
    lines.append(f"{total} files in {data.root}.")
    return "\n".join(lines)


def next_command(data: PreparedData, name: str) -> str:
    """The command that discovers classes, with a detector fitted on the good images."""
    images, good = (shlex.quote(str(data.root / folder)) for folder in ("test", "train/good"))
    return (
        f"Next:\n  anomalib-ncd discover --images {images} --normal_images {good} --labels folders "
        f"--num_novel_classes {len(data.defects) + 1} --output runs/{name}"
    )


COMMANDS = {"prepare": Command("Put published data into the layout that discover reads.", _add_prepare, _run_prepare)}
