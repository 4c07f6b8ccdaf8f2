# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import struct
import zlib

import cv2
import numpy as np
import pytest

from anomalib_ncd.deploy.image_files import ImageLimits, UnfinishedImageError, image_files, read_image_file


def write(file, shape=(20, 30, 3)):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    cv2.imwrite(str(file), pixels)
    return file


def png_that_announces(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_an_image_is_read_as_rgb(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 2] = 200  # red in OpenCV's order
    cv2.imwrite(str(tmp_path / "ä.png"), pixels)
    image = read_image_file(tmp_path / "ä.png")
    assert image.pixels[0, 0].tolist() == [200, 0, 0]
    assert image.path == tmp_path / "ä.png"


def test_a_half_written_image_is_told_from_a_broken_one(tmp_path):
    file = write(tmp_path / "a.jpg", (200, 200, 3))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert cv2.imread(str(file)) is not None  # OpenCV fills up what is missing
    with pytest.raises(UnfinishedImageError, match="is cut off after"):
        read_image_file(file)
    file.write_bytes(b"")
    with pytest.raises(UnfinishedImageError, match="is cut off after 0 bytes"):
        read_image_file(file)
    file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no image file"):
        read_image_file(file)


def test_a_giant_is_refused_by_its_header(tmp_path, monkeypatch):
    (tmp_path / "giant.png").write_bytes(png_that_announces(60_000, 50_000))
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(ValueError, match="has 60000 x 50000 pixels, more than the limit of 100,000,000; scale it down"):
        read_image_file(tmp_path / "giant.png")


def test_limits_can_be_set(tmp_path):
    file = write(tmp_path / "a.png")
    assert read_image_file(file, ImageLimits(max_pixels=600)).pixels.shape == (20, 30, 3)
    with pytest.raises(ValueError, match="has 30 x 20 pixels, more than the limit of 599"):
        read_image_file(file, ImageLimits(max_pixels=599))
    with pytest.raises(ValueError, match="bytes, more than the limit of 10"):
        read_image_file(file, ImageLimits(max_file_bytes=10))


def test_a_missing_file_is_no_broken_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image_file(tmp_path / "a.png")


def test_files_are_found_in_order_and_hidden_ones_left_out(tmp_path):
    names = ["b/2.JPG", "b/10.png", "a.tif", "b/c/1.webp"]
    for name in [*names, ".hidden.png", ".part/1.png", "notes.txt", "b/table.csv"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a.tif", "b/10.png", "b/2.JPG", "b/c/1.webp"]
    assert list(image_files(tmp_path / "a.tif")) == [tmp_path / "a.tif"]
    assert list(image_files(tmp_path / "vanished")) == []
