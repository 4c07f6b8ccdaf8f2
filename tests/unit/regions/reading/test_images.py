# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import struct
import zlib
from contextlib import suppress
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_ncd.regions.reading.images import decode_image, decode_samples, read_image
from anomalib_ncd.regions.reading.listing import ImageLimits

SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp")


def encoded(pixels, suffix=".png"):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def noise(shape):
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def saved(picture, kind, **options):
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_that_announces(width, height):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def tiff_that_announces(width, height, tag_type=4, *, big=False):
    """A TIFF without pixels, whose sizes are given as any type of integer; or a BigTIFF."""
    form = {4: "I", 8: "h", 9: "i", 16: "Q"}[tag_type]
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 100}
    fields = b""
    for tag, value in values.items():
        kind, packed = (tag_type, struct.pack(f"<{form}", value)) if tag < 258 else (4, struct.pack("<I", value))
        fields += struct.pack("<HHQ" if big else "<HHI", tag, kind, 1) + packed.ljust(8 if big else 4, b"\0")
    if big:
        return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(values)) + fields + bytes(8)
    return struct.pack("<2sHIH", b"II", 42, 8, len(values)) + fields + bytes(4)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((20, 20), 77, np.uint8), (77, 77, 77)),
        (np.full((20, 20, 3), (1, 2, 3), np.uint8), (3, 2, 1)),
        (np.full((20, 20, 4), (1, 2, 3, 9), np.uint8), (3, 2, 1)),
        (np.full((20, 20), 65535, np.uint16), (255, 255, 255)),
        (np.full((20, 20, 3), (257 * 40, 257, 0), np.uint16), (0, 1, 40)),
        (np.full((20, 20, 4), (257 * 40, 257, 0, 9), np.uint16), (0, 1, 40)),
    ],
    ids=["grey", "colour", "alpha", "16-bit grey", "16-bit colour", "16-bit alpha"],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_kind_of_image_becomes_rgb8(tmp_path, pixels, expected, suffix):
    file = tmp_path / f"ä{suffix}"
    file.write_bytes(encoded(pixels, suffix))
    image = read_image(file)
    assert image.shape == (20, 20, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert tuple(image[7, 7]) == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(40, 71, 3), (33, 20), (17, 300, 3)])
def test_pixels_are_those_of_opencv_in_each_format(suffix, shape):
    data = encoded(noise(shape), suffix)
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_image(data, "it"), bgr[..., ::-1])


@pytest.mark.parametrize("mode", ["P", "1", "LA", "CMYK"])
def test_rarer_modes_are_read(mode):
    picture = Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).convert(mode)
    assert decode_image(saved(picture, "JPEG" if mode == "CMYK" else "PNG"), "it").min() == 255


def test_a_bit_depth_is_the_range_of_16_bit_files():
    deep = encoded(np.array([[0, 257, 4095] * 6] * 16, np.uint16))
    assert decode_image(deep, "deep")[0, :3, 0].tolist() == [0, 1, 16]
    assert decode_image(deep, "deep", bit_depth=12)[0, :3, 0].tolist() == [0, 16, 255]
    assert decode_image(encoded(np.full((16, 16), 9, np.uint8)), "flat", bit_depth=12).max() == 9
    with pytest.raises(ValueError, match="deep has the value 4,095, but `bit_depth` allows 1,023; raise it"):
        decode_image(deep, "deep", bit_depth=10)


STORED_AS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: np.transpose,
    6: np.rot90,
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, -1),
}
"""How a camera stores an upright picture under each orientation of EXIF."""


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "deep PNG", "deep TIFF", "grey PNG"])
def test_images_come_out_upright_in_every_format(orientation, kind):
    shown = np.zeros((32, 48), np.uint8)
    shown[:16, :16] = 250  # a bright corner at the upper left
    stored = np.ascontiguousarray(STORED_AS[orientation](shown))
    kind, name = kind.rpartition(" ")[::2]
    if kind == "deep":
        deep = np.repeat(stored[..., None].astype(np.uint16) * 257, 3, axis=2)
        data = with_orientation(encoded(deep, f".{name.lower()}"), name, orientation)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        picture = Image.fromarray(stored if kind == "grey" else np.repeat(stored[..., None], 3, axis=2))
        data = saved(picture, name, **({"tiffinfo": {274: orientation}} if name == "TIFF" else {"exif": exif}))
    image = decode_image(data, "it")
    assert image.shape == (32, 48, 3)
    assert np.abs(image[..., 0].astype(int) - shown).mean() < 3


def with_orientation(data, kind, orientation):
    """A 16-bit colour file with the tag put in by hand, as nothing here writes one."""
    if kind == "PNG":
        body = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", orientation, 0) + bytes(4)
        return data[:33] + chunk(b"eXIf", body) + data[33:]
    start = struct.unpack_from("<I", data, 4)[0]
    (number,) = struct.unpack_from("<H", data, start)
    fields = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(number)]
    by_tag = {struct.unpack_from("<H", field)[0]: field for field in fields}
    by_tag[274] = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    table = struct.pack("<H", len(by_tag)) + b"".join(field for _, field in sorted(by_tag.items())) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + table


@pytest.mark.parametrize("data", [b"no picture", b"GIF89a" + bytes(50), b"\0" * 100])
def test_what_is_no_image_is_named(data):
    with pytest.raises(ValueError, match="Image part_7 can't be read: by its content it is no image file"):
        decode_image(data, "Image part_7")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_cut_off_is_refused(suffix):
    data = encoded(noise((120, 130, 3)), suffix)
    for length in (24, 60, len(data) // 2, len(data) - 40):
        with pytest.raises(ValueError, match="it is cut off after"):
            decode_image(data[:length], "it")


def test_a_deep_image_that_is_cut_off_is_refused():
    data = encoded(noise((120, 130, 3)).astype(np.uint16) * 257)
    with pytest.raises(ValueError, match="it is cut off after"):
        decode_image(data[: len(data) // 2], "it")


def test_no_bytes_break_the_reader():
    rng = np.random.default_rng(0)
    for suffix in SUFFIXES:
        data = encoded(noise((24, 24, 3)), suffix)
        for _ in range(100):
            broken = bytearray(data)
            for place in rng.integers(2 if suffix == ".jpg" else 8, len(data), 6):
                broken[place] = rng.integers(256)
            with suppress(ValueError):
                decode_image(bytes(broken[: rng.integers(len(data))]), "it", limits=ImageLimits(max_pixels=10_000))


@pytest.mark.parametrize(
    "data",
    [
        png_that_announces(60_000, 50_000),
        tiff_that_announces(60_000, 50_000),
        tiff_that_announces(30_000, 20_000, 8),
        tiff_that_announces(60_000, 50_000, 9),
        tiff_that_announces(60_000, 50_000, 16, big=True),
        tiff_that_announces(60_000, 50_000, big=True),
    ],
    ids=["png", "tiff", "tiff of shorts", "tiff of signed integers", "big tiff of long integers", "big tiff"],
)
def test_no_decoder_sees_a_giant(data, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(ValueError, match=r"it has \d0000 x \d0000 pixels, more than the limit of 100,000,000; scale"):
        decode_image(data, "it")


def test_limits_can_be_set(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(encoded(noise((20, 30, 3))))
    assert read_image(file, limits=ImageLimits(max_pixels=600)).shape == (20, 30, 3)
    with pytest.raises(ValueError, match="has 30 x 20 pixels, more than the limit of 599"):
        read_image(file, limits=ImageLimits(max_pixels=599))
    with pytest.raises(ValueError, match="bytes, more than the limit of 10"):
        read_image(file, limits=ImageLimits(max_file_bytes=10))


def test_several_pages_are_refused():
    page, other = Image.fromarray(noise((20, 20))), Image.fromarray(noise((20, 20)) // 2)
    for kind in ("TIFF", "PNG", "WEBP"):
        with pytest.raises(ValueError, match="it holds several pages"):
            decode_image(saved(page, kind, save_all=True, append_images=[other]), "it")


def test_small_and_float_images_are_refused():
    with pytest.raises(ValueError, match="thin is 40x15 pixels; at least 16 a side are needed"):
        decode_image(encoded(np.zeros((15, 40), np.uint8)), "thin")
    for dtype in (np.float32, np.int32, np.int16):
        with pytest.raises(ValueError, match="scores has pixels of type"):
            decode_image(encoded(np.zeros((16, 16), dtype), ".tiff"), "scores")
    with pytest.raises(ValueError, match="its samples are signed"):
        decode_image(encoded(np.zeros((16, 16), np.int8), ".tiff"), "scores")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_samples_are_as_the_file_holds_them(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    samples = decode_samples(encoded(values, ".tiff"), "it")
    assert samples.dtype == dtype
    np.testing.assert_array_equal(samples, values)


def test_example_of_decode_image():
    data = cv2.imencode(".png", np.full((20, 30), 7, np.uint8))[1].tobytes()
    image = decode_image(data, "grey.png")
    assert (image.shape, image.max()) == ((20, 30, 3), np.uint8(7))
