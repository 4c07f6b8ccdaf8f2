# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Writing files that a reader sees as a whole or not at all, even when the process is killed or the disk is full."""

from __future__ import annotations

import errno
import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

logger = logging.getLogger(__name__)

REASONS = {
    errno.ENOSPC: "no space left on the disk; free some",
    errno.EDQUOT: "no space left in the disk quota; free some",
    errno.ENAMETOOLONG: "its name is too long for this file system; shorten it",
    errno.EACCES: "there is no permission to write there; choose another folder",
    errno.EPERM: "there is no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a file stands where its folder should be; choose another folder",
    errno.EEXIST: "a file stands where its folder should be; choose another folder",
    errno.EISDIR: "a folder of that name stands there; remove it",
}


class OutputError(OSError):
    """A file could not be written; what stood there before is untouched."""

    @classmethod
    def of(cls, file: str | Path, error: OSError) -> OutputError:
        """Say which file could not be written, why, and what to do."""
        return cls(f"{file} can't be written: {REASONS.get(error.errno or 0, error.strerror or str(error))}.")


def write_file(file: str | Path, contents: bytes | str, *, sync: bool = True) -> None:
    """Write bytes, or text as UTF-8, as a whole; its folder is made where it is missing.

    Without `sync` it isn't waited for until it is on disk; for what is made again where it is lost. ``OutputError`` if
    it can't be written.
    """
    with whole_file(file, sync=sync) as unfinished:
        unfinished.write_bytes(contents.encode() if isinstance(contents, str) else contents)


def write_image(file: str | Path, image: np.ndarray, *, sync: bool = True) -> None:
    """Encode an image in the format of the file's suffix and write it as a whole, see :func:`write_file`.

    It is RGB ``(H, W, 3)`` or grey ``(H, W)``, uint8, or a mask ``(H, W)`` bool, which becomes 0 and 255.
    """
    file = Path(file)
    write_file(file, encode_image(image, file.suffix), sync=sync)


def encode_image(image: np.ndarray, suffix: str, quality: int = 95) -> bytes:
    """Encode an image; arguments and errors as :func:`write_image`, `quality` is that of JPEG."""
    image = image.astype(np.uint8) * 255 if image.dtype == bool else image
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in {".jpg", ".jpeg"} else []
    try:
        return cv2.imencode(suffix, image, flags)[1].tobytes()
    except cv2.error as error:
        msg = f"An image of shape {image.shape} can't be encoded as {suffix!r}; write PNG or JPEG: {error}"
        raise ValueError(msg) from error


@contextmanager
def whole_file(file: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Let a file be written under another name in its folder, and give it its own name when it is on disk."""
    file = Path(file)
    # Not longer than a name that the file system takes, and of one writer alone.
    unfinished = file.with_name(f".{uuid.uuid4().hex}.unfinished{file.suffix[:8]}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        if sync:
            with unfinished.open("rb") as stream:
                os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError as error:
        raise OutputError.of(file, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


class Journal:
    """Images that are finished, a line of JSON each in a file, as long as all of them are made from the same.

    ``settings.json`` beside the file says what that is; where it was something else, all are forgotten. What a killed
    run left of a line is taken out of the file.
    """

    def __init__(self, file: Path, made_from: str | None = None) -> None:
        self.file, beside = file, file.with_name("settings.json")
        found = beside.read_text(encoding="utf-8") if beside.is_file() else None
        if made_from is not None and found != made_from:
            file.unlink(missing_ok=True)
            write_file(beside, made_from)
        self.made_from = made_from or found  # text of that file
        *lines, cut = (file.read_text(encoding="utf-8") if file.is_file() else "").split("\n")
        whole = []
        for line in lines:
            with suppress(json.JSONDecodeError):
                whole.append(json.loads(line))
        self.entries: dict[str, dict[str, Any]] = {entry["image"]: entry for entry in whole}  # by the image's key
        if cut or len(whole) < len(lines):
            logger.warning("%s was cut short when a run was killed; its last image is done again.", file)
            write_file(file, "".join(f"{json.dumps(entry)}\n" for entry in whole))

    def add(self, entry: dict[str, Any]) -> None:
        """Note that an image is finished."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
