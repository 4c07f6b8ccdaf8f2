# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Bytes of a file, as they are: read by Python, within a limit, and from regular files alone."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageLimits:
    """What is too large to be read: most pixels of an image (100 million take 300 MB as 8-bit colour) and bytes."""

    max_pixels: int = 100_000_000
    max_file_bytes: int = 500_000_000


LIMITS = ImageLimits()


def read_bytes(path: str | os.PathLike[str], name: str, limits: ImageLimits = LIMITS) -> bytes:
    """Read a whole file, which messages call an ``"Image"`` or the like.

    ``FileNotFoundError`` if it is not there (any more); ``ValueError`` if it is too large, empty, no regular file, or
    its name is not UTF-8.
    """
    path = Path(path)
    check_name(path)
    try:
        found = path.stat()
    except FileNotFoundError as error:
        msg = f"{name} {path} is missing; check its path."
        raise FileNotFoundError(msg) from error
    if not stat.S_ISREG(found.st_mode):
        msg = f"{name} {path} is no regular file but a folder, a pipe or a device; remove it."
        raise ValueError(msg)
    if found.st_size > limits.max_file_bytes:
        size = f"{found.st_size:,} bytes, more than the limit of {limits.max_file_bytes:,}"
        msg = f"{name} {path} has {size}; cut it or raise the limit."
        raise ValueError(msg)
    if not found.st_size:
        msg = f"{name} {path} is empty: it is being written still, or was cut off. Write it again or remove it."
        raise ValueError(msg)
    return path.read_bytes()


def stamp_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds, which tell one state of a file from another."""
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path that can be written anywhere; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_name(path: str | os.PathLike[str]) -> None:
    """Raise ``ValueError`` for a name that no table could hold, as it is not UTF-8."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        msg = f"The name of {printable(path)} is not UTF-8; rename the file or its folder."
        raise ValueError(msg) from error
