# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A journal of finished images: lines of JSON that are only ever added to, and on disk before anything goes on.

A line is there as a whole or not at all: what a killed process or a full disk left of one is cut off.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self


class OutputError(RuntimeError):
    """Results could not be written; what was written before is complete."""


class FileStamp(NamedTuple):
    """What tells one state of an image file from another.

    Attributes:
        num_bytes: Size of the file.
        mtime_ns: Time of its last change.
        sha256: Digest of its contents.
    """

    num_bytes: int
    mtime_ns: int
    sha256: str


UNSETTLED = FileStamp(-1, -1, "")  # of an image that failed for a reason outside of its file: the next call tries again


class Journal:
    """Finished images by name, and what was found in them.

    One process at a time: the file is locked as long as the journal is open, and the lock goes with the process.

    Args:
        file: The journal; it is made where it is missing, its folder as well.

    Raises:
        OutputError: If another process has it open, or it can't be written.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.file.open("ab+")
        except OSError as error:
            raise _output_error(self.file, error) from error
        try:
            _lock(self._stream.fileno(), self.file)
            self._stamps: dict[str, FileStamp] = {}
            self._last_line: dict[str, int] = {}
            self._num_lines = 0
            self._end = self._read_finished()
        except BaseException:
            self._stream.close()
            raise

    def __len__(self) -> int:
        """Number of names."""
        return len(self._stamps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release the lock."""
        self._stream.close()

    def stamp_of(self, name: str) -> FileStamp | None:
        """State that an image was in when it was finished last; ``None`` where it never was."""
        return self._stamps.get(name)

    def renew(self, name: str, stamp: FileStamp) -> None:
        """Note, for as long as the journal is open, in which state a finished image's file is."""
        self._stamps[name] = stamp

    def append(self, entries: Sequence[tuple[str, FileStamp, dict[str, Any]]]) -> None:
        """Add finished images; they are on disk when this returns.

        Args:
            entries: Name, stamp and result of each.

        Raises:
            OutputError: If they can't be written; the journal is as before then.
        """
        lines = [
            json.dumps({"name": name, **stamp._asdict(), "result": result}, ensure_ascii=False)
            for name, stamp, result in entries
        ]
        data = "".join(f"{line}\n" for line in lines).encode()
        append_whole(self._stream.fileno(), data, self._end, self.file)
        self._end += len(data)
        for name, stamp, _ in entries:
            self._note(name, stamp)

    def results(self) -> Iterator[dict[str, Any]]:
        """Results of all finished images, in the order in which they were finished.

        An error that was got over later, or came again, is left out.
        """
        with self.file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                entry = json.loads(line)
                if entry["result"]["error"] is None or self._last_line[entry["name"]] == number:
                    yield entry["result"]

    def _note(self, name: str, stamp: FileStamp) -> None:
        """Remember the line that was added or read last."""
        self._num_lines += 1
        self._stamps[name] = stamp
        self._last_line[name] = self._num_lines

    def _read_finished(self) -> int:
        """Read the stamps, cut off a broken end, and return the length of what is whole."""
        self._stream.seek(0)
        end = 0
        for number, line in enumerate(self._stream, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                stamp = FileStamp(entry["num_bytes"], entry["mtime_ns"], entry["sha256"])
                self._note(entry["name"], stamp)
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                msg = f"Line {number} of {self.file} is damaged; mend or remove it, or choose another output folder."
                raise OutputError(msg) from error
            end += len(line)
        self._stream.truncate(end)
        return end


def append_whole(descriptor: int, data: bytes, end: int, file: Path, *, sync: bool = True) -> None:
    """Append to a file; where that fails, the file is cut back.

    Args:
        descriptor: The open file.
        data: What to append.
        end: Length of the file beforehand.
        file: What messages call it.
        sync: Wait until it is on disk.

    Raises:
        OutputError: If it can't be written.
    """
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, end)
        raise _output_error(file, error) from error


def write_file(file: Path, data: bytes) -> None:
    """Write a file that a reader sees as a whole or not at all.

    Args:
        file: Target; its folder is made where it is missing.
        data: Contents.

    Raises:
        OutputError: If it can't be written.
    """
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _output_error(file, error) from error


def _output_error(file: Path, error: OSError) -> OutputError:
    """What went wrong, and what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        msg = (
            f"The disk is full: {file} can't be written. All images finished so far are recorded; "
            "free some space and give the same command again."
        )
        return OutputError(msg)
    return OutputError(f"{file} can't be written: {error}. Check the output folder, then give the same command again.")


def _lock(descriptor: int, file: Path) -> None:
    """Lock a file against other processes, where the system can."""
    try:
        import fcntl  # noqa: PLC0415 - not on every system
    except ModuleNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        msg = f"Another process writes {file}; wait for it, stop it, or choose another output folder."
        raise OutputError(msg) from error
