# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Which classes an image has when its defects are of several kinds; in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomalib_ncd.regions.classes.slots import first_slots

CLASS_SEPARATOR = ";"  # of the column `classes`; no name may hold it

MIN_RELATIVE_SCORE = 0.7
MIN_CONFIDENCE = 0.4


def counting_regions(
    scores: np.ndarray,
    areas: np.ndarray,
    confidences: np.ndarray,
    image_index: np.ndarray,
    min_relative_score: float = MIN_RELATIVE_SCORE,
    min_confidence: float = MIN_CONFIDENCE,
) -> np.ndarray:
    """Tell which regions are sure enough to give their image a class of its own.

    A region counts if it has a mask, its anomaly score is at least `min_relative_score` of the highest one in its
    image, and its class at least `min_confidence` probable. Without the first two, every weak false alarm beside a
    defect would make two kinds of one. The defaults were chosen on generated images, see docs/health.md.

    Args:
        scores: ``(R,)`` float in [0, 1], anomaly score of each region.
        areas: ``(R,)``, mask pixels.
        confidences: ``(R,)`` float in [0, 1], probability of the region's class.
        image_index: ``(R,)`` int, the image that a region belongs to.
        min_relative_score: See above.
        min_confidence: See above.

    Returns:
        ``(R,)`` bool.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> scores, areas = np.array([0.9, 0.3, 0.3]), np.array([40, 9, 20])
        >>> counting_regions(scores, areas, np.ones(3), np.array([0, 0, 1])).tolist()
        [True, False, True]
    """
    if not scores.shape == areas.shape == confidences.shape == image_index.shape:
        shapes = [tuple(each.shape) for each in (scores, areas, confidences, image_index)]
        msg = f"`scores`, `areas`, `confidences` and `image_index` must have one shape (R,), got {shapes}."
        raise ValueError(msg)
    highest = np.zeros(image_index.max(initial=-1) + 1, scores.dtype)
    np.maximum.at(highest, image_index, scores)
    return (areas > 0) & (confidences >= min_confidence) & (scores >= min_relative_score * highest[image_index])


def classes_of_images(
    image_classes: np.ndarray,
    region_classes: np.ndarray,
    is_counting: np.ndarray,
    image_index: np.ndarray,
    class_names: Sequence[str],
    normal_slot: int | None,
) -> list[list[int]]:
    """List the classes of each image: that of the merged regions first, then those of other regions that count.

    Args:
        image_classes: ``(B,)`` int, class of each image.
        region_classes: ``(R,)`` int.
        is_counting: ``(R,)`` bool, see :func:`counting_regions`.
        image_index: ``(R,)`` int, the image that a region belongs to.
        class_names: Name of each slot; slots of one name are one class, which goes by its first slot.
        normal_slot: Slot of *normal*, which is listed only where it is the class of the image. ``None``: there is none.

    Returns:
        Slots of each image, each once, in the order of the regions.

    Example:
        >>> names = ["normal", "class_1", "class_2"]
        >>> regions, index = np.array([1, 2, 0]), np.array([0, 0, 1])
        >>> classes_of_images(np.array([1, 2]), regions, np.ones(3, bool), index, names, 0)
        [[1, 2], [2]]
    """
    first = first_slots(class_names)
    found: list[list[int]] = [[first[slot]] for slot in image_classes.tolist()]
    for slot, image in zip(region_classes[is_counting].tolist(), image_index[is_counting].tolist(), strict=True):
        if first[slot] not in {*found[image], normal_slot}:
            found[image].append(first[slot])
    return found
