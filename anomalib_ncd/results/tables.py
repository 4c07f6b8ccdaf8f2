# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The tables of a run and of classified images: the one place that knows their columns; without torch."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from anomalib_ncd.regions.classes.prediction import CLASS_SEPARATOR
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.writing import write_file

UNKNOWN = "unknown"  # the kind of what is unlike all of the run
LINES_NAME = "results.jsonl"
CLASSIFIER_NAME = "classifier.json"
COLUMNS = {
    "predictions.csv": ("image", "class", "confidence", "normal", "num_regions", "unknown", "classes"),
    "regions.csv": ("image", "left", "top", "right", "bottom", "area", "score", "class", "confidence", "unknown"),
    "errors.csv": ("image", "error"),
}
# What spreadsheets take for the beginning of a formula, which may run a program.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def write_tables(folder: str | Path, results: Sequence[ImageResult]) -> None:
    """Write ``predictions.csv`` and ``regions.csv``."""
    plain = [result.to_dict() for result in results]
    for name in ("predictions.csv", "regions.csv"):
        rows = [row for one in plain for row in table_rows(name, one)]
        write_file(Path(folder) / name, csv_bytes([COLUMNS[name], *rows]))


def table_rows(name: str, result: dict[str, Any]) -> list[list[Any]]:
    """Rows of an image in a table, in the order of :data:`COLUMNS`; in ``regions.csv`` one for each region with a mask.

    What stands for a whole image, where MEBin found nothing, is no region to a reader.
    """
    error = result["error"]
    if (error is None) == (name == "errors.csv"):
        return []
    if name == "errors.csv":
        return [[result[column] for column in COLUMNS[name]]]
    regions = [region for region in result["regions"] if region["area"]]
    if name == "regions.csv":
        boxes = [dict(zip(("left", "top", "right", "bottom"), region["box_xyxy"], strict=True)) for region in regions]
        rows = [{**region, **box, "image": result["image"]} for region, box in zip(regions, boxes, strict=True)]
        return [[row[column] for column in COLUMNS[name]] for row in rows]
    values = result | {"num_regions": len(regions), "classes": CLASS_SEPARATOR.join(result["classes"])}
    return [[values[column] for column in COLUMNS[name]]]


def csv_bytes(rows: Iterable[Sequence[Any]]) -> bytes:
    """Turn rows into CSV; text that a spreadsheet would run as a formula begins with an apostrophe."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([_harmless(cell) for cell in row] for row in rows)
    return stream.getvalue().encode("utf-8", "backslashreplace")  # names of files need not be text


def _harmless(cell: Any) -> Any:
    """A cell that no spreadsheet runs."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell
