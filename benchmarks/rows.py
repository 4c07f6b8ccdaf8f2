# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Rows of results: every measured figure with the commit, the day and the machine that it was measured on."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from anomalib_ncd.regions.writing import whole_file


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        case: Name of the case.
        seed: Its seed, or several of which the value is the mean.
        metric: What was measured.
        value: The figure.
        spread: Standard deviation over the seeds; empty for one seed.
        commit: Commit that it was measured with; with a ``command``, the last one whose docs had the figure, which
            was measured with it or before it.
        date: Day, ISO 8601.
        processor_seconds: Seconds of the processor that the case took; empty where not noted.
        machine: Processor and number of cores.
        command: Command of a script that is gone; empty for ``run.py``.
    """

    case: str
    seed: str
    metric: str
    value: float
    spread: str
    commit: str
    date: str
    processor_seconds: str
    machine: str
    command: str = ""


COLUMNS = [field.name for field in fields(Row)]


def append(file: Path, rows: list[Row]) -> None:
    """Add rows to a file; it is written as a whole."""
    kept = [*read(file), *rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in kept)


def read(file: Path) -> list[Row]:
    """Rows of a file; none where there is no such file.

    Raises:
        ValueError: If the columns are others.
    """
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != COLUMNS:
            msg = f"{file} must have the columns {COLUMNS}, got {reader.fieldnames}."
            raise ValueError(msg)
        return [Row(value=float(row.pop("value")), **row) for row in reader]


def newest(found: list[Row]) -> list[Row]:
    """Rows of the commit that was measured last; of a seed that was measured twice, the later ones."""
    latest = {(row.seed, row.metric): row for row in found if row.commit == found[-1].commit}
    return list(latest.values())


def current_commit() -> str:
    """Short hash of the last commit that changed the package, with a plus where its files were changed since."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", ":(top)anomalib_ncd")
    return git("log", "-1", "--format=%h", "--abbrev=7", "--", ":(top)anomalib_ncd") + ("+" if changed else "")


def machine() -> str:
    """Processor and number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"
