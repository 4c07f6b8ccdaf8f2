# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What is done with finished runs and results: ``name``, ``refine``, ``export`` and ``trend``."""

import logging
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.cli.command import Command

logger = logging.getLogger(__name__)


def _add_name(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Folder of a finished run.")
    parser.add_argument("--names", type=Path | None, help="File of names; RUN/class_names.json if left out.")


def _run_name(config: Namespace) -> None:
    from anomalib_ncd.runs.naming import name_classes

    name_classes(config.run, config.names)


def _add_refine(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Folder of a finished run; it stays as it is.")
    parser.add_argument("--corrections", type=Path, required=True, help="File that the report of the run saved.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the refined run.")


def _run_refine(config: Namespace) -> None:
    from anomalib_ncd.runs.refine import refine_run

    refine_run(config.run, config.corrections, config.output)


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Folder of a finished run.")
    parser.add_argument("--output", type=Path, required=True, help="Folder to write into.")
    kinds = Literal["coco", "yolo", "csv", "folders"]
    parser.add_argument("--format", type=kinds, default="coco", help="Regions with masks, or images in folders.")
    parser.add_argument("--copy", type=bool, default=False, help="Copy images instead of linking them.")


def _run_export(config: Namespace) -> None:
    from anomalib_ncd.runs.files import export_run

    export_run(config.run, config.output, config.format, copy=config.copy)


def _add_trend(parser: ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", help="Folders that `classify` wrote, of one classifier.")
    parser.add_argument("--output", type=Path, default=Path("trend.html"), help="The page to write.")
    helped = "Group by the day or eight-hour shift in which images were written, or by folder of results."
    parser.add_argument("--by", type=Literal["day", "shift", "batch"], default="day", help=helped)
    helped = "Share of groups without drift that may give an alarm."
    parser.add_argument("--false_alarm_rate", type=float, default=0.001, help=helped)


def _run_trend(config: Namespace) -> None:
    from anomalib_ncd.results.trend import read_trend
    from anomalib_ncd.visualization.trend import write_trend

    trend = read_trend(config.results, config.by, config.false_alarm_rate)
    write_trend(config.output, trend, config.by)
    drifted = [group.name for group in trend.groups if group.has_drifted]
    if drifted:
        logger.warning("Drift in %s: regions are less like those of the run than chance explains.", ", ".join(drifted))
    logger.info("Wrote %s.", config.output)


COMMANDS = {
    "name": Command("Call the classes of a run by names saved from its report.", _add_name, _run_name),
    "refine": Command(
        "Let the classes of a run follow corrections saved from its report; seconds.", _add_refine, _run_refine
    ),
    "export": Command("Write a run as COCO, YOLO, CSV or folders for other tools.", _add_export, _run_export),
    "trend": Command("Show kinds of defect over time, and drift, on one page.", _add_trend, _run_trend),
}
