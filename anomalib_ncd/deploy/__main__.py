# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_ncd.deploy``: a folder of images on a machine without training code.

What ``anomalib-ncd classify`` does with an artefact that holds its detector, where nothing but NumPy, OpenCV and the
artefact's runtime is installed; without pictures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.image_files import ImageLimits
from anomalib_ncd.deploy.line.folder_run import STOPPED, Counts, classify_folder, stop_on_sigterm
from anomalib_ncd.deploy.line.folder_watch import WatchOptions

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser."""
    parser = argparse.ArgumentParser(prog="python -m anomalib_ncd.deploy", description="Classify images.")
    parser.add_argument("artefact", type=Path, help="what `anomalib-ncd pack` wrote, with a detector in it")
    parser.add_argument("--images", type=Path, required=True, help="folder, searched recursively, or an image")
    parser.add_argument("--output", type=Path, required=True, help="folder of results; an interrupted one goes on")
    parser.add_argument("--sha256", help="digest that the artefact must have")
    parser.add_argument("--watch", action="store_true", help="go on with images that come later")
    parser.add_argument("--stop_after_idle", type=float, help="stop watching after so many idle seconds")
    parser.add_argument("--poll_seconds", type=float, default=0.5, help="pause between two looks at the folder")
    parser.add_argument("--masks", action="store_true", help="put masks into results.jsonl")
    parser.add_argument("--batch_size", type=int, default=8, help="images at a time")
    parser.add_argument("--num_threads", type=int, help="threads of the runtime")
    parser.add_argument("--max_pixels", type=int, default=ImageLimits.max_pixels, help="larger images are refused")
    return parser


def main(args: Sequence[str] | None = None) -> Counts | None:
    """Classify a folder.

    Args:
        args: Arguments instead of the command line's.

    Returns:
        How many images were classified; ``None`` where a watch was stopped.
    """
    flags = build_parser().parse_args(args)
    classifier = AnomalyClassifier.load(
        flags.artefact,
        sha256=flags.sha256,
        num_threads=flags.num_threads,
        limits=ImageLimits(max_pixels=flags.max_pixels),
        batch_size=flags.batch_size,
    )
    try:
        with stop_on_sigterm():
            counts = classify_folder(
                classifier,
                flags.images,
                flags.output,
                watch=WatchOptions() if flags.watch else None,
                poll_seconds=flags.poll_seconds,
                stop_after_idle=flags.stop_after_idle,
                pictures=False,
                masks=flags.masks,
            )
    except KeyboardInterrupt:
        logger.info("Stopped. What was classified is in %s; the same command goes on.", flags.output)
        if flags.watch:
            return None
        sys.exit(STOPPED)
    logger.info("%d images classified, %d could not be used, %d were done before.", *counts)
    return counts


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        sys.exit(f"anomalib_ncd.deploy: {error}")
