# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Images of a folder as they come: once each, when they are whole, in whatever way they are written."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomalib_ncd.deploy.image_files import ImageLimits, decode_bytes, image_files
from anomalib_ncd.deploy.line.journal import FileStamp, Journal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchOptions:
    """How patient to be with files that are being written.

    Attributes:
        settle_seconds: A file is looked at when its size and time have not changed for so long.
        retry_seconds: Pause before a file that can't be read is tried again; it doubles each time.
        max_tries: After so many tries a file that stays as it is is recorded as an error.
    """

    settle_seconds: float = 0.5
    retry_seconds: float = 0.5
    max_tries: int = 6


class ArrivedImage(NamedTuple):
    """A file that is to be classified.

    Attributes:
        path: The file.
        name: Its path relative to the folder, POSIX style.
        stamp: The state it was read in.
        pixels: ``(H, W, 3)`` uint8 RGB; ``None`` where it can't be read.
        error: Why it can't be read.
    """

    path: Path
    name: str
    stamp: FileStamp
    pixels: np.ndarray | None
    error: str | None = None


@dataclass
class _Pending:
    """A file that is waited for."""

    num_bytes: int
    mtime_ns: int
    ready_at: float
    tries: int = 0


class FolderWatch:
    """Finds the images of a folder that are not in the journal.

    An image is the same as long as its path and contents are: one that is touched, moved away and back, or announced
    twice is not classified again, one that is overwritten with another picture is.

    Args:
        source: Folder of images, searched recursively, or one image.
        journal: Finished images.
        options: How patient to be. Defaults to ``None``: files are there as a whole, what can't be read is an error.
        limits: What is too large to be read.
        is_ready: Asked before a file is read, for instance whether its anomaly map is there. Defaults to ``None``.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        source: str | Path,
        journal: Journal,
        options: WatchOptions | None = None,
        limits: ImageLimits | None = None,
        is_ready: Callable[[Path], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = Path(source)
        self.folder = self.source.parent if self.source.is_file() else self.source
        self.journal = journal
        self.options = options
        self.limits = limits or ImageLimits()
        self._is_ready = is_ready or (lambda _: True)
        self._clock = clock
        self._pending: dict[Path, _Pending] = {}

    @property
    def num_pending(self) -> int:
        """Number of files that are waited for."""
        return len(self._pending)

    def poll(self) -> Iterator[ArrivedImage]:
        """Look through the folder once.

        Yields:
            Files that are whole and not finished yet, and those that are given up.
        """
        missing = set(self._pending)
        for path in image_files(self.source):
            missing.discard(path)
            try:
                arrived = self._look_at(path)
            except FileNotFoundError:
                logger.info("%s vanished before it was read.", path)
                self._pending.pop(path, None)
                continue
            if arrived is not None:
                self._pending.pop(path, None)
                yield arrived
        for path in missing:
            logger.info("%s vanished before it was read.", path)
            self._pending.pop(path, None)

    def _look_at(self, path: Path) -> ArrivedImage | None:
        """Read a file if it is new, whole, and its time has come."""
        stat = path.stat()
        name = path.relative_to(self.folder).as_posix()
        known = self.journal.stamp_of(name)
        if known is not None and (known.num_bytes, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return None
        pending = self._waiting_for(path, stat.st_size, stat.st_mtime_ns)
        if self._clock() < pending.ready_at:
            return None
        arrived = self._read(path, name, pending)
        if arrived is not None and known is not None and known.sha256 == arrived.stamp.sha256:
            self.journal.renew(name, arrived.stamp)
            self._pending.pop(path, None)
            return None
        return arrived

    def _waiting_for(self, path: Path, num_bytes: int, mtime_ns: int) -> _Pending:
        """What is known of a file; anew where it has changed."""
        pending = self._pending.get(path)
        if pending is None or (pending.num_bytes, pending.mtime_ns) != (num_bytes, mtime_ns):
            settle = 0.0 if self.options is None else self.options.settle_seconds
            pending = self._pending[path] = _Pending(num_bytes, mtime_ns, self._clock() + settle)
        return pending

    def _read(self, path: Path, name: str, pending: _Pending) -> ArrivedImage | None:
        """Read and decode a file; ``None`` where it is to be tried again later."""
        if pending.num_bytes > self.limits.max_file_bytes:
            limit = f"{self.limits.max_file_bytes:,}"
            error = f"Image {path} has {pending.num_bytes:,} bytes, more than the limit of {limit}; raise it or cut."
            return ArrivedImage(path, name, FileStamp(pending.num_bytes, pending.mtime_ns, ""), None, error)
        data = path.read_bytes()
        if self.options is not None and self._has_changed(path, pending):
            return None
        stamp = FileStamp(pending.num_bytes, pending.mtime_ns, hashlib.sha256(data).hexdigest())
        if not self._is_ready(path) and self._try_again(pending):
            return None
        try:
            return ArrivedImage(path, name, stamp, decode_bytes(data, path, self.limits))
        except ValueError as error:  # cut off, or damaged: a file's end may be written first
            return None if self._try_again(pending) else ArrivedImage(path, name, stamp, None, str(error))

    def _has_changed(self, path: Path, pending: _Pending) -> bool:
        """Whether a file was written to while it was read."""
        stat = path.stat()
        return self._waiting_for(path, stat.st_size, stat.st_mtime_ns) is not pending

    def _try_again(self, pending: _Pending) -> bool:
        """Put a file off, unless it was tried often enough."""
        pending.tries += 1
        if self.options is None or pending.tries >= self.options.max_tries:
            return False
        pending.ready_at = self._clock() + self.options.retry_seconds * 2 ** (pending.tries - 1)
        return True
