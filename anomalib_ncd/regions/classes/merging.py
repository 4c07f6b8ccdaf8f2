# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Region merging of one image in NumPy, and the choice of its class, for places without torch.

What ``merge_regions`` and ``predict_classes`` do for batches of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from anomalib_ncd.regions.classes.slots import first_slots


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


def choose_classes(probabilities: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Choose the most probable class; slots of one name stand together.

    Args:
        probabilities: ``(N, K)`` float.
        class_names: Name of each of the K slots.

    Returns:
        ``(N,)`` int64, the slot: the most probable one among those of the most probable name; and ``(N,)`` float32, the
        probability of that name.

    Raises:
        ValueError: If there aren't as many names as slots.

    Example:
        >>> slots, scores = choose_classes(np.array([[0.375, 0.25, 0.375]]), ["dent", "scratch", "scratch"])
        >>> slots.tolist(), scores.tolist()
        ([2], [0.625])
    """
    probabilities = np.asarray(probabilities, dtype=np.float32)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        msg = f"`class_names` must name the K slots of (N, K), got {len(class_names)} for {probabilities.shape}."
        raise ValueError(msg)
    slots = np.array(first_slots(class_names))
    by_name = np.zeros_like(probabilities)
    for slot, target in enumerate(slots.tolist()):
        by_name[:, target] += probabilities[:, slot]
    best = by_name.argmax(axis=1)
    of_name = slots[None] == best[:, None]
    return np.where(of_name, probabilities, -1).argmax(axis=1), by_name.max(axis=1)
