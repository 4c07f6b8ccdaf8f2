# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd export``: a run in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace


def add_export_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``export``."""
    parser.add_argument("run", type=Path, help="Folder of a finished run.")
    parser.add_argument("--output", type=Path, required=True, help="Folder to write into.")
    kinds = Literal["coco", "yolo", "csv", "folders"]
    parser.add_argument("--format", type=kinds, default="coco", help="Regions with masks, or images in folders.")
    parser.add_argument("--copy", type=bool, default=False, help="Copy images instead of linking them.")


def run_export(config: Namespace) -> None:
    """Run ``export`` with parsed flags."""
    from anomalib_ncd.runs.files import export_run

    export_run(config.run, config.output, config.format, copy=config.copy)
