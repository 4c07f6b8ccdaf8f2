# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_ncd.regions.reading.image_header import read_header

KINDS = {".png": "png", ".jpg": "jpeg", ".bmp": "bmp", ".tif": "tiff", ".webp": "webp"}


def encoded(suffix, shape, *options):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("shape", [(40, 71, 3), (33, 20), (17, 300, 3)])
def test_size_and_end_of_each_format(suffix, shape):
    data = encoded(suffix, shape)
    assert read_header(data) == (KINDS[suffix], shape[:2], True)
    for length in (24, 60, len(data) // 2, len(data) - 5):
        assert not read_header(data[:length]).is_complete


def test_lossless_webp_says_its_size():
    assert read_header(encoded(".webp", (40, 71, 3), cv2.IMWRITE_WEBP_QUALITY, 101)) == ("webp", (40, 71), True)


def test_a_progressive_jpeg_with_a_thumbnail_inside(tmp_path):
    thumbnail = encoded(".jpg", (16, 16, 3))
    exif = Image.Exif()
    exif[270] = "camera"
    file = tmp_path / "progressive.jpg"
    Image.fromarray(np.full((50, 60, 3), 9, np.uint8)).save(file, progressive=True, exif=exif)
    data = file.read_bytes()
    # The thumbnail's end marker comes before the picture's pixels and must not be taken for the picture's.
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = data[:2] + segment + data[2:]
    assert read_header(data) == ("jpeg", (50, 60), True)
    assert not read_header(data[:-2]).is_complete


def test_what_follows_the_end_does_not_matter():
    for suffix in KINDS:
        assert read_header(encoded(suffix, (30, 30, 3)) + b"more").is_complete


def test_a_png_of_a_few_bytes_may_announce_a_giant():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 50_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert read_header(data) == ("png", (50_000, 60_000), True)


def test_unknown_bytes():
    assert read_header(b"") == ("unknown", None, True)
    assert read_header(b"no picture at all") == ("unknown", None, True)
    assert not read_header(b"\x89PNG\r\n\x1a\n").is_complete
    assert not read_header(b"BM123").is_complete


def test_no_bytes_break_the_reader():
    rng = np.random.default_rng(0)
    for suffix in KINDS:
        data = encoded(suffix, (24, 24, 3))
        for _ in range(200):
            broken = bytearray(data)
            for place in rng.integers(2 if suffix == ".jpg" else 8, len(data), 6):
                broken[place] = rng.integers(256)
            header = read_header(bytes(broken[: rng.integers(len(data))]))
            assert isinstance(header.is_complete, bool)
