# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Reading image files that nobody has looked at before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomalib_ncd.regions.reading.decoding import IMAGE_SUFFIXES, decode_image
from anomalib_ncd.regions.reading.image_header import read_header


class UnfinishedImageError(ValueError):
    """An image file whose end is missing: half-written, or cut off for good."""


@dataclass(frozen=True)
class ImageLimits:
    """What is too large to be decoded.

    Attributes:
        max_pixels: Most pixels of an image; 100 million take 300 MB as 8-bit colour.
        max_file_bytes: Largest file.
    """

    max_pixels: int = 100_000_000
    max_file_bytes: int = 500_000_000


@dataclass(frozen=True)
class ImageInput:
    """An image with what is known of it.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, RGB.
        path: Its file; ``None`` for an array.
    """

    pixels: np.ndarray
    path: Path | None = None


def read_image_file(path: str | os.PathLike[str], limits: ImageLimits | None = None) -> ImageInput:
    """Read an image file within limits.

    Args:
        path: Image file.
        limits: What is too large; the size is read off the header, before anything is decoded.

    Returns:
        The image as 8-bit RGB.

    Raises:
        FileNotFoundError: If the file is not there (any more).
        UnfinishedImageError: If the end of the file is missing.
        ValueError: If the file is too large, can't be decoded or a side is shorter than 16 pixels.
    """
    path, limits = Path(path), limits or ImageLimits()
    num_bytes = path.stat().st_size
    if num_bytes > limits.max_file_bytes:
        msg = (
            f"Image {path} has {num_bytes:,} bytes, more than the limit of {limits.max_file_bytes:,}; raise it or cut."
        )
        raise ValueError(msg)
    return ImageInput(decode_bytes(path.read_bytes(), path, limits), path)


def decode_bytes(data: bytes, path: Path, limits: ImageLimits) -> np.ndarray:
    """Decode an image file that was read already; see :func:`read_image_file`."""
    header = read_header(data)
    if not header.is_complete or not data:
        msg = f"Image {path} is cut off after {len(data):,} bytes; it is being written still, or was damaged."
        raise UnfinishedImageError(msg)
    if header.size_hw is not None and header.size_hw[0] * header.size_hw[1] > limits.max_pixels:
        height, width = header.size_hw
        msg = (
            f"Image {path} has {width} x {height} pixels, more than the limit of {limits.max_pixels:,}; scale it down."
        )
        raise ValueError(msg)
    return decode_image(data, str(path))


def image_files(folder: str | Path) -> Iterator[Path]:
    """Find image files below a folder, in order of their names, a directory at a time.

    Hidden files and folders (names that start with a dot) are left out, as writers use them for unfinished files.

    Args:
        folder: Folder, searched recursively, or one file.

    Yields:
        Paths; a folder that vanishes meanwhile is passed over.
    """
    if Path(folder).is_file():
        yield Path(folder)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from image_files(entry.path)
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            yield Path(entry.path)
