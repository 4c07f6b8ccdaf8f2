# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the bytes of an image file say before they are decoded: the size in pixels, and whether the end is there.

A file of a few kilobytes can hold a picture of gigabytes, and OpenCV fills what is missing of a half-written file with
grey instead of refusing it. Both have to be known beforehand.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM"
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_TIFF_FORMATS = {3: "H", 4: "I"}


class ImageHeader(NamedTuple):
    """What is known of an image file.

    Attributes:
        kind: ``"png"``, ``"jpeg"``, ``"bmp"``, ``"tiff"``, ``"webp"``, or ``"unknown"``.
        size_hw: Height and width in pixels; ``None`` where the file doesn't say.
        is_complete: Whether the file goes to its end; ``True`` for formats that don't tell.
    """

    kind: str
    size_hw: tuple[int, int] | None
    is_complete: bool


def read_header(data: bytes) -> ImageHeader:
    """Read size and completeness off an image file, without decoding it.

    Args:
        data: The whole file, as far as it is written.

    Returns:
        The header. Bytes of no known format are ``"unknown"``, of no known size, and complete.

    Example:
        >>> import cv2, numpy as np
        >>> data = cv2.imencode(".png", np.zeros((4, 7), np.uint8))[1].tobytes()
        >>> read_header(data)
        ImageHeader(kind='png', size_hw=(4, 7), is_complete=True)
        >>> read_header(data[:-3]).is_complete
        False
    """
    reader = _reader_of(data)
    if reader is None:
        return ImageHeader("unknown", None, is_complete=True)
    try:
        return reader(data)
    except (struct.error, IndexError):
        return ImageHeader("unknown", None, is_complete=False)


def _reader_of(data: bytes) -> Callable[[bytes], ImageHeader] | None:
    """What reads a format, by the first bytes."""
    readers = {_PNG: _png, _JPEG: _jpeg, _BMP: _bmp, **dict.fromkeys(_TIFF, _tiff)}
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    return next((reader for start, reader in readers.items() if data.startswith(start)), None)


def _png(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    position, is_complete = 8, False
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        is_complete = kind == b"IEND" and position <= len(data)
        if kind == b"IEND":
            break
    return ImageHeader("png", (height, width), is_complete)


def _jpeg(data: bytes) -> ImageHeader:
    position, size_hw = 2, None
    while position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF or marker in _JPEG_ALONE:  # filling, or a marker without content
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_SIZES:
            size_hw = struct.unpack_from(">HH", data, position + 5)
        if marker == 0xDA:  # the pixels; no end marker can be among them
            return ImageHeader("jpeg", size_hw, data.rfind(b"\xff\xd9", position) > 0)
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return ImageHeader("jpeg", size_hw, is_complete=False)


def _bmp(data: bytes) -> ImageHeader:
    file_size, offset = struct.unpack_from("<I4xI", data, 2)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    wanted = max(file_size, offset) if compression else offset + (abs(width) * bits + 31) // 32 * 4 * abs(height)
    return ImageHeader("bmp", (abs(height), abs(width)), len(data) >= wanted)


def _webp(data: bytes) -> ImageHeader:
    is_complete = len(data) >= struct.unpack_from("<I", data, 4)[0] + 8
    kind, size_hw = data[12:16], None
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        size_hw = (height & 0x3FFF, width & 0x3FFF)
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        size_hw = ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    elif kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        size_hw = (height, width)
    return ImageHeader("webp", size_hw, is_complete)


def _tiff(data: bytes) -> ImageHeader:
    """The list of tags may lie at the end of the file, so its absence says that the end is missing."""
    order = _TIFF[data[:4]]
    tags = _tiff_tags(data, order)
    width, height = tags.get(256, [0]), tags.get(257, [0])
    places = zip(tags.get(273, tags.get(324, [])), tags.get(279, tags.get(325, [])), strict=False)
    ends = [start + length for start, length in places]
    size_hw = (height[0], width[0]) if width[0] and height[0] else None
    return ImageHeader("tiff", size_hw, bool(ends) and max(ends) <= len(data))


def _tiff_tags(data: bytes, order: str) -> dict[int, list[int]]:
    """Whole numbers of the first picture by tag; those of strips and tiles among them."""
    start = struct.unpack_from(f"{order}I", data, 4)[0]
    tags = {}
    num_tags = struct.unpack_from(f"{order}H", data, start)[0]
    if start + 2 + 12 * num_tags + 4 > len(data):
        raise IndexError
    for index in range(num_tags):
        position = start + 2 + 12 * index
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, position)
        if kind not in _TIFF_FORMATS:
            continue
        one = struct.calcsize(_TIFF_FORMATS[kind])
        at = position + 8 if one * number <= 4 else struct.unpack_from(f"{order}I", data, position + 8)[0]
        if at + one * number > len(data):
            raise IndexError
        tags[tag] = list(struct.unpack_from(f"{order}{number}{_TIFF_FORMATS[kind]}", data, at))
    return tags
