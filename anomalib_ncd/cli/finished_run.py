# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What is done with finished runs and results: ``name``, ``refine``, ``export`` and ``trend``."""

import logging
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

logger = logging.getLogger(__name__)


def add_name_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``name``."""
    parser.add_argument("run", type=Path, help="Folder of a finished run.")
    parser.add_argument("--names", type=Path | None, help="File of names; RUN/class_names.json if left out.")


def run_name(config: Namespace) -> None:
    """Run ``name`` with parsed flags."""
    from anomalib_ncd.runs.naming import name_classes

    name_classes(config.run, config.names)


def add_refine_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``refine``."""
    parser.add_argument("run", type=Path, help="Folder of a finished run; it stays as it is.")
    parser.add_argument("--corrections", type=Path, required=True, help="File that the report of the run saved.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the refined run.")


def run_refine(config: Namespace) -> None:
    """Run ``refine`` with parsed flags."""
    from anomalib_ncd.runs.refine import refine_run

    refine_run(config.run, config.corrections, config.output)


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


def add_trend_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``trend``."""
    parser.add_argument("results", type=Path, nargs="+", help="Folders that `classify` wrote, of one classifier.")
    parser.add_argument("--output", type=Path, default=Path("trend.html"), help="The page to write.")
    helped = "Group by the day or eight-hour shift in which images were written, or by folder of results."
    parser.add_argument("--by", type=Literal["day", "shift", "batch"], default="day", help=helped)
    helped = "Share of groups without drift that may give an alarm."
    parser.add_argument("--false_alarm_rate", type=float, default=0.001, help=helped)


def run_trend(config: Namespace) -> None:
    """Run ``trend`` with parsed flags."""
    from anomalib_ncd.results.trend import read_trend
    from anomalib_ncd.visualization.trend import write_trend

    trend = read_trend(config.results, config.by, config.false_alarm_rate)
    write_trend(config.output, trend, config.by)
    drifted = [group.name for group in trend.groups if group.has_drifted]
    if drifted:
        logger.warning("Drift in %s: regions are less like those of the run than chance explains.", ", ".join(drifted))
    logger.info("Wrote %s.", config.output)
