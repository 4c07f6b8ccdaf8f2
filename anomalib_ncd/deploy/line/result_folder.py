# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The folder that classified images leave: a journal, tables made from it, and pictures."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from anomalib_ncd.deploy.line.drawing import draw_result
from anomalib_ncd.deploy.line.journal import UNSETTLED, FileStamp, Journal, OutputError, append_whole, write_file
from anomalib_ncd.deploy.packing.manifest import Manifest
from anomalib_ncd.deploy.results import ImageResult
from anomalib_ncd.regions.classes.image_classes import CLASS_SEPARATOR

if TYPE_CHECKING:
    from typing_extensions import Self

JOURNAL_NAME = "results.jsonl"
CLASSIFIER_NAME = "classifier.json"
# The columns of a run's predictions.csv and regions.csv come first.
COLUMNS = {
    "predictions.csv": ("image", "class", "confidence", "num_regions", "unknown", "classes", "normal", "score"),
    "regions.csv": (
        "image",
        "left",
        "top",
        "right",
        "bottom",
        "area",
        "score",
        "class",
        "confidence",
        "unknown",
    ),
    "errors.csv": ("image", "error"),
}


class Finished(NamedTuple):
    """A classified image.

    Attributes:
        name: Its name in the journal: its path relative to the folder of images.
        stamp: The state that its file was in.
        result: What was found.
        pixels: The image, for its picture; ``None`` where it could not be read.
        is_final: Whether a later call need not try again; an error of the detector or a missing map is not final.
    """

    name: str
    stamp: FileStamp
    result: ImageResult
    pixels: np.ndarray | None
    is_final: bool = True


class ResultFolder:
    """Results on disk that survive a kill and a full disk: each image once, and no half rows.

    ``results.jsonl`` is the record; ``predictions.csv``, ``regions.csv`` and ``errors.csv`` are made from it anew
    whenever the folder is opened, and kept up with it after that.

    Args:
        folder: The folder; an existing one is gone on with.
        manifest: Of the classifier.
        pictures: Whether to draw a picture of each image.
        masks: Whether to put the masks of regions into the journal.

    Raises:
        ValueError: If the folder holds results of another classifier.
        OutputError: If another process writes to it, or it can't be written.
    """

    def __init__(self, folder: str | Path, manifest: Manifest, *, pictures: bool = True, masks: bool = False) -> None:
        self.folder = Path(folder)
        self.pictures = pictures
        self.masks = masks
        self._class_names = manifest.class_names
        self._errors_are_old = False
        self.journal = Journal(self.folder / JOURNAL_NAME)
        try:
            self._claim(manifest)
            self._ends = {name: self._rebuild(name) for name in COLUMNS}
        except BaseException:
            self.journal.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._errors_are_old and error is None:
                self._rebuild("errors.csv")
        finally:
            self.journal.close()

    def add(self, finished: Sequence[Finished]) -> None:
        """Record classified images: pictures first, then the journal, then the tables.

        Raises:
            OutputError: If something can't be written. Images are then either recorded or not, never in part.
        """
        if not finished:
            return
        if self.pictures:
            for one in finished:
                self._draw(one)
        plain = [one.result.to_dict(masks=self.masks) for one in finished]
        stamps = [one.stamp if one.is_final else UNSETTLED for one in finished]
        names = [one.name for one in finished]
        self._errors_are_old |= any(self.journal.stamp_of(name) is not None for name in names)
        self.journal.append(list(zip(names, stamps, plain, strict=True)))
        for one in finished:
            self.journal.renew(one.name, one.stamp)
        for name in COLUMNS:
            self._extend(name, plain)

    def _claim(self, manifest: Manifest) -> None:
        """Note which classifier the results are of, or make sure that it is this one."""
        file = self.folder / CLASSIFIER_NAME
        if file.is_file() and len(self.journal):
            found = json.loads(file.read_text(encoding="utf-8")).get("sha256")
            if found != manifest.sha256:
                msg = f"{self.folder} holds results of another classifier or other class names; choose another output."
                raise ValueError(msg)
        text = json.dumps({"sha256": manifest.sha256, "class_names": manifest.class_names}, indent=2)
        write_file(file, text.encode())

    def _draw(self, finished: Finished) -> None:
        """Write the picture of an image."""
        if finished.pixels is None or finished.result.error is not None:
            return
        picture = cv2.cvtColor(draw_result(finished.pixels, finished.result, self._class_names), cv2.COLOR_RGB2BGR)
        encoded, data = cv2.imencode(".jpg", picture)
        if not encoded:
            msg = f"The picture of {finished.name} can't be encoded."
            raise OutputError(msg)
        # The whole name, as a.png and a.jpg may lie side by side.
        write_file(self.folder / "pictures" / f"{finished.name}.jpg", data.tobytes())

    def _rebuild(self, name: str) -> int:
        """Write a table of all that the journal holds; its length."""
        file = self.folder / name
        unfinished = file.with_name(f".{name}.unfinished")
        write_file(unfinished, _csv_text([COLUMNS[name]]))
        end = self._append(unfinished, _csv_rows(name, self.journal.results()), unfinished.stat().st_size)
        unfinished.replace(file)
        return end

    def _extend(self, name: str, results: Iterable[dict[str, Any]]) -> None:
        """Add rows to a table."""
        self._ends[name] = self._append(self.folder / name, _csv_rows(name, results), self._ends[name])

    def _append(self, file: Path, chunks: Iterable[bytes], end: int) -> int:
        """Append to a file as a whole; its new length."""
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            for chunk in chunks:
                append_whole(descriptor, chunk, end, file, sync=False)
                end += len(chunk)
        finally:
            os.close(descriptor)
        return end


def _csv_rows(name: str, results: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Rows of a table for each result that has some."""
    makers = {"predictions.csv": _prediction_rows, "regions.csv": _region_rows, "errors.csv": _error_rows}
    for result in results:
        rows = makers[name](result)
        if rows:
            yield _csv_text(rows)


def _prediction_rows(result: dict[str, Any]) -> list[list[Any]]:
    """Row of an image in ``predictions.csv``."""
    if result["error"] is not None:
        return []
    classes = CLASS_SEPARATOR.join(result.get("classes", ()))  # journals of before have none
    values = {**result, "num_regions": len(result["regions"]), "classes": classes}
    return [[values[column] for column in COLUMNS["predictions.csv"]]]


def _region_rows(result: dict[str, Any]) -> list[list[Any]]:
    """Rows of an image in ``regions.csv``."""
    columns = ("area", "score", "class", "confidence", "unknown")
    return [
        [result["image"], *region["box_xyxy"], *(region[column] for column in columns)]
        for region in result.get("regions", [])
    ]


def _error_rows(result: dict[str, Any]) -> list[list[Any]]:
    """Row of an image in ``errors.csv``."""
    return [] if result["error"] is None else [[result["image"], result["error"]]]


def _csv_text(rows: Sequence[Sequence[Any]]) -> bytes:
    """Rows as bytes."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()
