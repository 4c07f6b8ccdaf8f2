# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Results of images in an SQLite database: a row an image with what it was made from, one transaction a batch."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anomalib_ncd.regions.writing import OutputError, write_file

VERSION = 1
SCHEMA = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE results (key BLOB PRIMARY KEY, made_from TEXT, failed INTEGER, result BLOB) WITHOUT ROWID",
)
SAVE = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)"


class ResultStore:
    """Results of one classifier by the key of their image.

    One process at a time: SQLite keeps the file locked for as long as the store is open, and the lock goes with the
    process. A transaction is there as a whole or not at all, whenever the process is killed.

    Args:
        file: The database; it is made where it is missing, its folder as well.
        classifier: Digest of all that decides about a result.

    Raises:
        OutputError: If another process has it open, or it can't be read or written.
        ValueError: If it holds results of another classifier, or is of another version.
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
            with self._reasons():
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
        rows = [
            (os.fsencode(key), made_from, result["error"] is not None, _to_json(result))
            for key, made_from, result in entries
        ]
        with self._reasons(), self._transaction():
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
        with self._transaction():
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
                msg = (
                    f"{self.file.parent} holds results of another classifier, detector or other class names; "
                    "choose another output folder."
                )
                raise ValueError(msg)
            self._database.execute("UPDATE results SET made_from = NULL WHERE failed")  # each call tries them again

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        """Say why something failed, and what to do."""
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


def _to_json(result: dict[str, Any]) -> bytes:
    """One line of JSON; what is no UTF-8 in a file name becomes an escape, which JSON reads back."""
    return json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace")
