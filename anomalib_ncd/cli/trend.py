# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd trend``: kinds of defect over time, from the results of ``classify``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

logger = logging.getLogger(__name__)


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
