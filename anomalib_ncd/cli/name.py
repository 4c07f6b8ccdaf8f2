# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd name``: call the classes of a run what the user calls them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.results.class_names import FILE_NAME, read_class_names
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.files import REPORT_FILE, RESULTS_FILE, write_run_files

logger = logging.getLogger(__name__)


def add_name_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``name``."""
    parser.add_argument("run", type=Path, help="Folder of a finished run.")
    parser.add_argument("--names", type=Path | None, help="File of names; RUN/class_names.json if left out.")


def run_name(config: Namespace) -> None:
    """Run ``name`` with parsed flags."""
    name_classes(config.run, config.names)


def name_classes(run: str | Path, names: str | Path | None = None) -> list[str]:
    """Write the tables, pictures and checkpoint of a run again under other names; nothing is predicted again.

    Args:
        run: Folder of a finished run.
        names: File as the report saves it; it is kept in the run as ``class_names.json``, so that the names last.
            Defaults to ``None``: the file that lies there.

    Returns:
        Name of each slot.

    Raises:
        FileNotFoundError: If there is no finished run or no file of names.
        ValueError: If the file of names is wrong, see :func:`~anomalib_ncd.results.class_names.resolve_class_names`.
    """
    run = Path(run)
    own = run / FILE_NAME
    results = RunResults.load(run / RESULTS_FILE)
    class_names = read_class_names(names or own, results.slot_names)
    if names is not None and Path(names).resolve() != own.resolve():
        unfinished = own.with_name(f".{own.name}.unfinished")
        shutil.copyfile(names, unfinished)
        unfinished.replace(own)
    write_run_files(run, results, class_names)
    logger.info("The classes of %s are called %s now.", run, ", ".join(dict.fromkeys(class_names)))
    logger.info("Look at %s.", run / REPORT_FILE)
    return class_names
