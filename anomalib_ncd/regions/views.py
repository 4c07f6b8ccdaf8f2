# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The fixed view of a region that its class is predicted from."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

CROP_RATIO = 0.875


def eval_view(image: np.ndarray, mask: np.ndarray, image_size: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """Make the view that predictions are made from: short side to 256, then a 224 crop at (16, 16); other sizes alike.

    Of a region ``(h, w, 3)`` uint8 with its mask ``(h, w)`` bool it is the view ``(3, S, S)`` uint8 and the mask
    ``(1, S, S)`` float32 in [0, 1], both contiguous.
    """
    if image_size < 1:
        msg = f"`image_size` must be 1 or more, got {image_size}; 224 is the paper's."
        raise ValueError(msg)
    resized = int(image_size / CROP_RATIO)
    image, soft_mask = resize_short_side(image, mask, resized)
    offset = (resized - image_size) // 2
    window = np.s_[offset : offset + image_size, offset : offset + image_size]
    return np.ascontiguousarray(image[window].transpose(2, 0, 1)), np.ascontiguousarray(soft_mask[window][None])


def eval_views(
    regions: Sequence[tuple[np.ndarray, np.ndarray]], image_size: int = 224
) -> tuple[np.ndarray, np.ndarray]:
    """Views ``(R, 3, S, S)`` and masks ``(R, 1, S, S)`` of regions with their masks, see :func:`eval_view`."""
    views = np.zeros((len(regions), 3, image_size, image_size), np.uint8)
    masks = np.zeros((len(regions), 1, image_size, image_size), np.float32)
    for index, (image, mask) in enumerate(regions):
        views[index], masks[index] = eval_view(image, mask, image_size)
    return views, masks


def whole_view(image: np.ndarray, image_size: int = 224) -> np.ndarray:
    """Make the view ``(3, S, S)`` of a whole image that is compared with normal images: all of it, as a square."""
    resized = cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def resize_antialiased(
    array: np.ndarray,
    size_hw: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
    box_xyxy: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resize ``(H, W)`` or ``(H, W, C)`` as Pillow does, widening the filter where it shrinks; float32, not rounded.

    OpenCV's filters keep their width, and its bicubic has another shape. With a box, that part of the resized whole:
    the filter reads beyond it.
    """
    resized = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize(size_hw[::-1], resampling, box_xyxy))
        for channel in np.moveaxis(np.atleast_3d(array), 2, 0)  # one at a time: a large photograph takes less memory
    ]
    return resized[0] if array.ndim == 2 else np.stack(resized, axis=2)


def resize_short_side(image: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize a region so that its shorter side has ``size`` pixels; the mask becomes soft, float32 in [0, 1]."""
    height, width = image.shape[:2]
    # Truncation of the longer side as in torchvision's resize.
    target = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    # Pillow's filter widens where it shrinks, as the authors' does; OpenCV's gives other pixels.
    resized, soft_mask = (
        np.array(Image.fromarray(part).resize(target, Image.Resampling.BILINEAR))
        for part in (image, mask.astype(np.float32))
    )
    return resized, soft_mask
