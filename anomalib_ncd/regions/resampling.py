# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Resizing without aliasing as Pillow and torchvision do it, in NumPy.

OpenCV's filters keep their width when they shrink, and its bicubic has another shape. Each output row and column is a
weighted mean of a few neighbours, so that the resize is a product with a banded matrix on either side; the bands are
multiplied in blocks, and only inside the window that is asked for.
"""

from functools import lru_cache
from typing import Literal

import numpy as np

Filter = Literal["bilinear", "bicubic"]
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_BLOCK = 32


def resize_antialiased(
    array: np.ndarray,
    size_hw: tuple[int, int],
    resampling: Filter = "bilinear",
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Resize ``(H, W)`` or ``(H, W, C)``, widening the filter where it shrinks; float32, not rounded.

    ``"bicubic"`` has a = -0.5 and may overshoot. `window` is the part of the result to compute: left, top, right,
    bottom.

    Example:
        >>> resize_antialiased(np.array([[0.0, 4.0]]), (1, 4))
        array([[0., 1., 3., 4.]], dtype=float32)
    """
    array = np.asarray(array)
    if array.ndim not in {2, 3} or array.size == 0:
        msg = f"`array` must have shape (H, W) or (H, W, C) and not be empty, got {array.shape}; pass one at a time."
        raise ValueError(msg)
    if min(size_hw) < 1:
        msg = f"`size_hw` must be height and width, 1 or more, got {size_hw}; pass `image.shape[:2]`."
        raise ValueError(msg)
    if resampling not in _SUPPORT:
        msg = f"`resampling` must be one of {sorted(_SUPPORT)}, got {resampling!r}; take 'bilinear'."
        raise ValueError(msg)
    height, width = size_hw
    left, top, right, bottom = (0, 0, width, height) if window is None else window
    if not (0 <= left <= right <= width and 0 <= top <= bottom <= height):
        msg = f"`window` must lie inside of {width} x {height}, got {window}; clip it."
        raise ValueError(msg)
    columns = _resize_rows(np.swapaxes(array, 0, 1), width, resampling, left, right)
    return _resize_rows(np.swapaxes(columns, 0, 1), height, resampling, top, bottom)


def _resize_rows(array: np.ndarray, size: int, resampling: Filter, start: int, stop: int) -> np.ndarray:
    """Resize the first axis to `size` and return its rows from `start` to `stop`, as float32."""
    if size == len(array):
        return array[start:stop].astype(np.float32, copy=False)
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    result = np.empty((stop - start, flat.shape[1]), dtype=np.float32)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        weights, low = _weights(len(array), size, resampling, first, last)
        # Only these rows are turned into float32: a large photograph would take four times its memory.
        result[first - start : last - start] = weights @ flat[low : low + weights.shape[1]].astype(
            np.float32, copy=False
        )
    return result.reshape(-1, *array.shape[1:])


@lru_cache(maxsize=256)  # the images of a camera are of one size
def _weights(old: int, new: int, resampling: Filter, first: int, last: int) -> tuple[np.ndarray, int]:
    """Weights ``(rows, n)`` of the n input rows from `low` on for the output rows from `first` to `last`; and `low`."""
    scale = old / new
    stretch = max(scale, 1.0)
    reach = _SUPPORT[resampling] * stretch
    centers = (np.arange(first, last) + 0.5) * scale
    # Where the filter begins and ends, by the same truncation as Pillow.
    begins = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + reach + 0.5).astype(np.int64), old)
    low, high = int(begins.min()), int(ends.max())
    inputs = np.arange(low, high)
    distances = np.abs(inputs[None] - centers[:, None] + 0.5) / stretch
    weights = _bicubic(distances) if resampling == "bicubic" else np.maximum(1 - distances, 0)
    weights[(inputs[None] < begins[:, None]) | (inputs[None] >= ends[:, None])] = 0
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), low


def _bicubic(distances: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -0.5."""
    near = (1.5 * distances - 2.5) * distances * distances + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    return np.where(distances < 1, near, np.where(distances < 2, far, 0))
