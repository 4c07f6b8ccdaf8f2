# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Region merging of one image in NumPy, for places without torch; see ``anomalib_ncd.functional.merge_regions``."""

from __future__ import annotations

import math

import numpy as np


def region_weights(areas: np.ndarray, temperature: float) -> np.ndarray:
    """Weight of each region of an image: softmax of the root of its area over the temperature.

    Args:
        areas: ``(R,)``, 0 or more, in pixels.
        temperature: In pixels, as side length, above 0.

    Returns:
        ``(R,)`` float32 that sum to 1.

    Raises:
        ValueError: If there is no region, an area is negative or the temperature is not positive.

    Example:
        >>> region_weights(np.array([16, 16]), 50)
        array([0.5, 0.5], dtype=float32)
    """
    areas = np.asarray(areas, dtype=np.float32)
    if areas.ndim != 1 or not areas.size or areas.min() < 0:
        msg = f"`areas` must have shape (R,), R of 1 or more, and not be negative, got {areas}; count mask pixels."
        raise ValueError(msg)
    if not temperature > 0:
        msg = f"`temperature` must be positive, got {temperature}; 50 to 100 are the paper's."
        raise ValueError(msg)
    scaled = np.sqrt(areas) / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max())
    return exponentials / exponentials.sum()


def merge_image(probabilities: np.ndarray, areas: np.ndarray, temperature: float) -> np.ndarray:
    """Merge the class probabilities of the regions of one image.

    Args:
        probabilities: ``(R, K)`` float.
        areas: ``(R,)``, 0 or more, in pixels.
        temperature: See :func:`region_weights`.

    Returns:
        ``(K,)`` float32.

    Raises:
        ValueError: If the shapes don't agree or a value is out of range.

    Example:
        >>> merge_image(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([16, 16]), 50)
        array([0.5, 0.5], dtype=float32)
    """
    probabilities = np.asarray(probabilities, dtype=np.float32)
    if probabilities.ndim != 2 or len(probabilities) != len(areas):
        msg = f"`probabilities` must have shape (R, K) for {len(areas)} areas, got {probabilities.shape}."
        raise ValueError(msg)
    return region_weights(areas, temperature) @ probabilities


def merging_temperature_of(size_hw: tuple[int, int]) -> float:
    """Temperature of region merging that grows with the image: an eighth of the root of its area.

    Args:
        size_hw: Height and width in pixels.

    Returns:
        The temperature, as ``relative_merging_temperature`` has it for many images.

    Example:
        >>> merging_temperature_of((400, 400))
        50.0
    """
    return math.sqrt(size_hw[0] * size_hw[1]) / 8
