# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From the bytes of an image file to 8-bit RGB."""

from __future__ import annotations

import cv2
import numpy as np

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
MIN_IMAGE_SIDE_PX = 16


def decode_image(data: bytes | np.ndarray, name: str) -> np.ndarray:
    """Decode an image file.

    Grey images are repeated over three channels, an alpha channel is dropped, and 16-bit images are scaled by their
    full range (65,535 becomes 255), so that the same grey value means the same in every image.

    Args:
        data: The whole file.
        name: What messages call it.

    Returns:
        Array of shape ``(H, W, 3)``, ``uint8``.

    Raises:
        ValueError: If the bytes can't be decoded, are of another type than 8 or 16 bits, or a side is shorter than
            16 pixels.

    Example:
        >>> data = cv2.imencode(".png", np.full((20, 30), 7, np.uint8))[1]
        >>> image = decode_image(data, "grey.png")
        >>> image.shape, image.max()
        ((20, 30, 3), np.uint8(7))
    """
    buffer = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else data
    image = _decoded(buffer)
    if image is None:
        msg = f"Cannot read image {name}: it is missing, empty or no image file. Mend or remove it."
        raise ValueError(msg)
    if min(image.shape[:2]) < MIN_IMAGE_SIDE_PX:
        size = f"{image.shape[1]}x{image.shape[0]}"
        msg = f"Image {name} is {size} pixels; at least {MIN_IMAGE_SIDE_PX} a side are needed. Remove it."
        raise ValueError(msg)
    return _to_rgb8(image, name)


def _decoded(buffer: np.ndarray) -> np.ndarray | None:
    """Decode by content; ``None`` where that fails."""
    if buffer.size == 0:
        return None
    try:
        return cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def _to_rgb8(image: np.ndarray, name: str) -> np.ndarray:
    """Bring any decoded image to 8-bit RGB."""
    if image.dtype == np.uint16:
        image = (image / 257.0 + 0.5).astype(np.uint8)
    if image.dtype != np.uint8:
        msg = f"Image {name} has pixels of type {image.dtype}; 8-bit or 16-bit images are expected. Convert it."
        raise ValueError(msg)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
