# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The folder that classified images leave: a database, tables written from it, and pictures."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.reading.listing import mark_output
from anomalib_ncd.regions.writing import OutputError, encode_image, whole_file, write_file
from anomalib_ncd.results.tables import CLASSIFIER_NAME, COLUMNS, LINES_NAME, csv_bytes, table_rows

if TYPE_CHECKING:
    from typing_extensions import Self

    from anomalib_ncd.deploy.packing.artefact import Manifest

logger = logging.getLogger(__name__)

STORE_NAME = "results.sqlite"
TABLE_SECONDS = 5.0  # least pause between two writings of the tables
TABLE_SHARE = 20  # and so many times as long as the last one took
MAX_NAME_BYTES = 255

VERSION = 1
SCHEMA = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE results (key BLOB PRIMARY KEY, made_from TEXT, failed INTEGER, result BLOB) WITHOUT ROWID",
)
SAVE = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)"


class ResultStore:
    """Results of one classifier by the key of their image, in a database that is made where it is missing.

    One process at a time: SQLite keeps the file locked for as long as the store is open, and the lock goes with the
    process. A transaction is there as a whole or not at all, whenever the process is killed. ``OutputError`` if another
    process has it open, or it can't be read or written; ``ValueError`` if it holds results of another classifier, or is
    of another version.
    """

    def __init__(self, file: str | Path, classifier: str) -> None:
        self.file = Path(file)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.of(self.file.parent, error) from error
        with self._reasons():
            self._database = sqlite3.connect(self.file, timeout=1, isolation_level=None)
            try:
                self._open(classifier)
            except BaseException:
                self._database.close()
                raise

    def __len__(self) -> int:
        """Number of images."""
        with self._reasons():
            return int(self._database.execute("SELECT count(*) FROM results").fetchone()[0])

    def close(self) -> None:
        """Give the lock back."""
        with self._reasons():
            self._database.close()

    def made_from(self, key: str) -> str | None:
        """What the result of an image was made from; ``None`` where there is none or it is to be tried again."""
        with self._reasons():
            row = self._database.execute("SELECT made_from FROM results WHERE key = ?", (os.fsencode(key),)).fetchone()
        return None if row is None else row[0]

    def save(self, entries: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        """Save key, what it was made from and result of each image, in place of earlier ones: all or none."""
        rows = []
        for key, made_from, result in entries:
            # What is no UTF-8 in a file name becomes an escape, which JSON reads back.
            line = json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace")
            rows.append((os.fsencode(key), made_from, result["error"] is not None, line))
        with self._reasons(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(SAVE, rows)

    def lines(self, *, failed: bool | None = None) -> Iterator[bytes]:
        """Results as JSON, in the order of their keys; only those that failed, or only the others, or all."""
        where = "" if failed is None else f" WHERE failed = {int(failed)}"
        with self._reasons():
            for (line,) in self._database.execute(f"SELECT result FROM results{where} ORDER BY key"):  # noqa: S608
                yield line

    def _open(self, classifier: str) -> None:
        """Lock the database, make its tables where it is new, and see whose results it holds."""
        # With the lock held for good there is no shared memory, so that this works on network drives as well.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        [version] = self._database.execute("PRAGMA user_version").fetchone()
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if version == 0:
                for statement in SCHEMA:
                    self._database.execute(statement)
                self._database.execute("INSERT INTO about VALUES ('classifier', ?)", (classifier,))
                self._database.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                msg = f"{self.file} has version {version}, this package writes {VERSION}; choose another output folder."
                raise ValueError(msg)
            [found] = self._database.execute("SELECT value FROM about WHERE key = 'classifier'").fetchone()
            if found != classifier:
                others = "another classifier, detector or other class names"
                msg = f"{self.file.parent} holds results of {others}; choose another output folder."
                raise ValueError(msg)
            self._database.execute("UPDATE results SET made_from = NULL WHERE failed")  # each call tries them again

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._reason(error) from error

    def _reason(self, error: sqlite3.Error) -> OutputError:
        """SQLite knows a full disk, a lock and damage; for the rest the system is asked."""
        text = str(error)
        if "locked" in text:
            msg = f"Another process writes {self.file}; wait for it, stop it, or choose another output folder."
            return OutputError(msg)
        if "not a database" in text or "malformed" in text or "no such" in text:
            return OutputError(f"{self.file} is damaged ({text}); remove it, or choose another output folder.")
        if "full" in text:
            return OutputError.of(self.file, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        probe = self.file.with_name(".probe")
        try:
            write_file(probe, bytes(1 << 16))
            probe.unlink()
        except OSError as reason:
            return OutputError.of(self.file, reason.__cause__ if isinstance(reason.__cause__, OSError) else reason)
        return OutputError(f"{self.file} can't be written: {text}. Check the output folder.")


class Finished(NamedTuple):
    """A classified image; ``key`` tells it from all others, ``made_from`` is the state that its files were in."""

    key: str
    name: str  # path relative to the folder of images, which its picture has as well
    made_from: str
    result: ImageResult
    pixels: np.ndarray | None  # None where it could not be read


class ResultFolder:
    """Results on disk that survive a kill and a full disk: each image once, and no half rows.

    ``results.sqlite`` is the record. ``results.jsonl``, ``predictions.csv``, ``regions.csv`` and ``errors.csv`` are
    written from it, in the order of the images' paths: every few seconds, and when the folder is closed. An existing
    folder of the same ``classifier``, the digest of all that decides about a result, is gone on with. A picture of each
    image is drawn with ``pictures``; the masks of regions are part of the results with ``masks``. ``ValueError`` if the
    folder holds results of another classifier, or of something else; ``OutputError`` if another process writes to it,
    or it can't be written.
    """

    def __init__(
        self, folder: str | Path, classifier: str, manifest: Manifest, *, pictures: bool = True, masks: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.pictures = pictures and _can_draw()
        self.masks = masks
        self._merging = manifest.region_merging
        self._written_at, self._seconds, self._is_old = -float("inf"), 0.0, True
        if not (self.folder / STORE_NAME).exists() and (self.folder / "predictions.csv").exists():
            msg = f"{self.folder} holds tables that are not from `classify`, such as a run's; choose another output."
            raise ValueError(msg)
        self.store = ResultStore(self.folder / STORE_NAME, classifier)
        mark_output(self.folder)
        write_file(self.folder / CLASSIFIER_NAME, _about(classifier, manifest))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if self._is_old and not isinstance(error, OutputError):
                self._write_tables()
        finally:
            self.store.close()

    def add(self, finished: Sequence[Finished]) -> None:
        """Record classified images: pictures first, then the database; none in part if that fails with OutputError.

        The tables are written where the last writing is long enough ago.
        """
        for one in finished if self.pictures else ():
            self._draw(one)
        results = [one.result.to_dict(masks=self.masks) | {"modified": _modified(one)} for one in finished]
        self.store.save([(one.key, one.made_from, result) for one, result in zip(finished, results, strict=True)])
        self._is_old |= bool(finished)
        if self._is_old and time.monotonic() - self._written_at > max(TABLE_SECONDS, TABLE_SHARE * self._seconds):
            self._write_tables()

    def _write_tables(self) -> None:
        start = time.monotonic()
        with whole_file(self.folder / LINES_NAME) as unfinished, unfinished.open("wb") as stream:
            stream.writelines(line + b"\n" for line in self.store.lines(failed=None))
        for name, columns in COLUMNS.items():
            lines = self.store.lines(failed=name == "errors.csv")
            with whole_file(self.folder / name) as unfinished, unfinished.open("wb") as stream:
                stream.write(csv_bytes([columns]))
                stream.writelines(csv_bytes(table_rows(name, json.loads(line))) for line in lines)
        self._written_at = time.monotonic()
        self._seconds, self._is_old = self._written_at - start, False

    def _draw(self, finished: Finished) -> None:
        from anomalib_ncd.visualization.drawing import draw_result  # noqa: PLC0415 - it imports matplotlib

        if finished.pixels is None or finished.result.error is not None:
            return
        try:
            data = encode_image(draw_result(finished.pixels, finished.result, self._merging), ".jpg")
        except Exception as error:  # noqa: BLE001 - the result counts, with a picture or without
            logger.warning("The picture of %s can't be drawn: %s", finished.name, error)
            return
        write_file(self.folder / "pictures" / _picture_name(finished.name), data)


def _about(classifier: str, manifest: Manifest) -> str:
    """What is to be known of the classifier where only its results are at hand, as JSON."""
    rejection = manifest.rejection
    about = {
        "classifier": classifier,
        "class_names": manifest.class_names,
        "normal": "normal" if manifest.normal_slot is None else manifest.class_names[manifest.normal_slot],
        "false_reject_rate": rejection and rejection.false_reject_rate,
        "similarities": rejection and rejection.similarities,
    }
    return json.dumps(about, ensure_ascii=False) + "\n"


def _modified(finished: Finished) -> str | None:
    """When the image was written, in UTC; ``None`` where its file could not be asked."""
    _, _, nanoseconds = finished.made_from.partition(" ")[0].partition(":")
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, timezone.utc).isoformat() if nanoseconds else None


def _can_draw() -> bool:
    """Whether the packages that drawing needs are there; results do without."""
    try:
        import anomalib_ncd.visualization.drawing  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        logger.warning("No pictures are drawn, for which %s would have to be installed.", error.name)
        return False
    return True


def _picture_name(name: str) -> str:
    """Whole name of an image, as a.png and a.jpg may lie side by side, but for one that is too long."""
    folder, _, last = name.rpartition("/")
    if len(os.fsencode(last)) + len(".jpg") > MAX_NAME_BYTES:
        last = f"{last[:50]}-{hashlib.sha256(os.fsencode(last)).hexdigest()[:16]}"
    return f"{folder}/{last}.jpg" if folder else f"{last}.jpg"
