# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From an image file to 8-bit RGB. Pillow knows a file by its header, before any of its pixels is decoded."""

import os
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
from PIL import ImageFile as PillowFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from anomalib_ncd.regions.reading.listing import LIMITS, ImageLimits, read_bytes

FORMATS = "PNG, JPEG, BMP, TIFF or WebP"
MIN_IMAGE_SIDE_PX = 16
_ORIENTATION, _SAMPLE_FORMAT = 274, 339  # tags of EXIF and TIFF
_SIGNED = 2
_READERS: dict[bytes, Callable[[BytesIO, str], PillowFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": jpeg_factory,
    b"BM": BmpImageFile,
    b"II": TiffImageFile,
    b"MM": TiffImageFile,
    b"RIFF": WebPImageFile,
}


def read_image(path: str | os.PathLike[str], bit_depth: int = 16, limits: ImageLimits = LIMITS) -> np.ndarray:
    """Read an image file as 8-bit RGB ``(H, W, 3)``; see :func:`decode_image`.

    What is too large is told off the header, before anything is decoded.
    """
    return decode_image(read_bytes(path, "Image", limits), f"Image {path}", bit_depth, limits)


def decode_image(data: bytes, name: str, bit_depth: int = 16, limits: ImageLimits = LIMITS) -> np.ndarray:
    """Decode an image file to ``(H, W, 3)`` uint8.

    Images come out upright: as their EXIF orientation says, in every format. Grey images are repeated over three
    channels and an alpha channel is dropped. 16-bit images are scaled by the range of their bit depth, so that the same
    grey value means the same in every image: with 12, 4,095 becomes 255. ``ValueError`` if the bytes can't be decoded,
    are of another type than 8 or 16 bits, exceed the bit depth, hold several pages, or a side is shorter than 16
    pixels.
    """
    samples = decode_samples(data, name, limits)
    if min(samples.shape[:2]) < MIN_IMAGE_SIDE_PX:
        size = f"{samples.shape[1]}x{samples.shape[0]}"
        msg = f"{name} is {size} pixels; at least {MIN_IMAGE_SIDE_PX} a side are needed. Remove it."
        raise ValueError(msg)
    if samples.dtype == np.uint16:
        samples = _scaled(samples, name, 2**bit_depth - 1)
    if samples.dtype != np.uint8:
        msg = f"{name} has pixels of type {samples.dtype}; 8-bit or 16-bit images are expected. Convert it."
        raise ValueError(msg)
    return np.ascontiguousarray(samples) if samples.ndim == 3 else cv2.cvtColor(samples, cv2.COLOR_GRAY2RGB)


def decode_samples(data: bytes, name: str, limits: ImageLimits = LIMITS) -> np.ndarray:
    """Decode a picture to its samples, upright: ``(H, W)`` or RGB ``(H, W, 3)`` of uint8, uint16, int32 or float32.

    ``ValueError`` if the bytes are no picture of a known format, are cut off, hold too many pixels or several pages.
    """
    picture = _opened(data, name)
    width, height = picture.size
    if width * height > limits.max_pixels:
        size = f"{width} x {height} pixels, more than the limit of {limits.max_pixels:,}"
        msg = f"{name} has {size}; scale it down or raise the limit."
        raise ValueError(msg)
    try:
        num_pages = _num_pages(picture)
        samples = _decoded(picture, data)
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except MemoryError as error:
        msg = f"{name} has {width} x {height} pixels, for which there is no memory; scale it down."
        raise ValueError(msg) from error
    except Exception as error:
        msg = f"{name} is cut off after {len(data):,} bytes or damaged ({error}). Write it again or remove it."
        raise ValueError(msg) from error
    if num_pages > 1:
        msg = f"{name} holds several pages; save the one that is meant as a file of its own."
        raise ValueError(msg)
    return _upright(samples, orientation)


def _opened(data: bytes, name: str) -> PillowFile.ImageFile:
    """A picture whose header was read; nothing is decoded."""
    reader = next((reader for start, reader in _READERS.items() if data.startswith(start)), None)
    if reader is None:
        msg = f"{name} can't be read: by its content it is no image file ({FORMATS}). Mend or remove it."
        raise ValueError(msg)
    try:
        return reader(BytesIO(data), "")  # not Image.open, whose own limit can't be raised for one call
    except Exception as error:
        msg = f"{name} is cut off after {len(data):,} bytes, damaged or of a rare kind ({error}). Write it again."
        raise ValueError(msg) from error


def _num_pages(picture: PillowFile.ImageFile) -> int:
    """Number of pages, at most two. A JPEG's further pictures are made from its first, such as a preview of depth."""
    if picture.format != "TIFF":
        return min(getattr(picture, "n_frames", 1), 2) if picture.format in {"PNG", "WEBP"} else 1
    try:
        picture.seek(1)
    except EOFError:
        return 1
    finally:
        picture.seek(0)
    return 2


def _decoded(picture: PillowFile.ImageFile, data: bytes) -> np.ndarray:
    """Samples of a picture; Pillow has no 16-bit colour, which OpenCV decodes when Pillow has seen the whole file."""
    is_deep_colour = any(";16" in str(tile[3]) for tile in picture.tile) and not picture.mode.startswith("I")
    is_signed = picture.format == "TIFF" and _SIGNED in picture.tag_v2.get(_SAMPLE_FORMAT, ())  # type: ignore[attr-defined]
    picture.load()
    if is_deep_colour:
        samples = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.size == 0:
            msg = "its 16-bit colours can't be decoded"
            raise ValueError(msg)
        return samples if samples.ndim == 2 else samples[..., 2::-1]
    if picture.mode.startswith("I;16"):
        return np.array(picture).astype(np.uint16)
    if picture.mode in {"I", "F", "L", "RGB"}:
        samples = np.array(picture)
        if is_signed and picture.mode != "I":
            msg = "its samples are signed"
            raise ValueError(msg)
        # Before Pillow 11 a grey 16-bit PNG has 32-bit samples.
        return samples.astype(np.uint16) if picture.mode == "I" and picture.format == "PNG" else samples
    return np.array(picture.convert("L" if picture.mode in {"1", "LA"} else "RGB"))


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror samples as EXIF says."""
    if orientation in {5, 6, 7, 8}:
        samples = np.swapaxes(samples, 0, 1)
    if orientation in {3, 4, 7, 8}:
        samples = samples[::-1]
    return samples[:, ::-1] if orientation in {2, 3, 6, 7} else samples


def _scaled(samples: np.ndarray, name: str, highest: int) -> np.ndarray:
    if samples.max() > highest:
        msg = f"{name} has the value {samples.max():,}, but `bit_depth` allows {highest:,}; raise it."
        raise ValueError(msg)
    return (samples / (highest / 255) + 0.5).astype(np.uint8)
