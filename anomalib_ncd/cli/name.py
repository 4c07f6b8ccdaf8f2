# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd name``: call the classes of a run what the user calls them."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_name_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``name``."""
    parser.add_argument("run", type=Path, help="Folder of a finished run.")
    parser.add_argument("--names", type=Path | None, help="File of names; RUN/class_names.json if left out.")


def run_name(config: Namespace) -> None:
    """Run ``name`` with parsed flags."""
    from anomalib_ncd.runs.naming import name_classes

    name_classes(config.run, config.names)
