# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd refine``: let the classes of a run follow what its user corrected."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_refine_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``refine``."""
    parser.add_argument("run", type=Path, help="Folder of a finished run; it stays as it is.")
    parser.add_argument("--corrections", type=Path, required=True, help="File that the report of the run saved.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the refined run.")


def run_refine(config: Namespace) -> None:
    """Run ``refine`` with parsed flags."""
    from anomalib_ncd.runs.refine import refine_run

    refine_run(config.run, config.corrections, config.output)
