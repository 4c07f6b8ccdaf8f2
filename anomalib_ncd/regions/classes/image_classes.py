# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Which classes an image has when its defects are of several kinds."""

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
    min_relative_score: float = MIN_RELATIVE_SCORE,
    min_confidence: float = MIN_CONFIDENCE,
) -> np.ndarray:
    """Tell which regions of an image, ``(R,)`` bool, are sure enough to give it a class of their own.

    A region counts if it has a mask, its anomaly score in [0, 1] is at least `min_relative_score` of the highest one in
    its image, and its class at least `min_confidence` probable. Without the first two, every weak false alarm beside a
    defect would make two kinds of one. The defaults were chosen on generated images, see docs/guides/trust.md.

    Example:
        >>> counting_regions(np.array([0.9, 0.3, 0.8]), np.array([40, 9, 20]), np.ones(3)).tolist()
        [True, False, True]
    """
    if not scores.shape == areas.shape == confidences.shape:
        shapes = [tuple(each.shape) for each in (scores, areas, confidences)]
        msg = f"`scores`, `areas` and `confidences` must have one shape (R,), got {shapes}."
        raise ValueError(msg)
    return (areas > 0) & (confidences >= min_confidence) & (scores >= min_relative_score * scores.max(initial=0))


def classes_of_image(
    image_class: int,
    region_classes: Sequence[int],
    class_names: Sequence[str],
    normal_slot: int | None,
) -> list[int]:
    """List the classes of an image, each once: that of the merged regions first, then those of regions that count.

    Slots of one name are one class, which goes by its first slot. *Normal* is listed only where it is the class of the
    image.

    Example:
        >>> classes_of_image(1, [2, 0, 1], ["normal", "class_1", "class_2"], normal_slot=0)
        [1, 2]
    """
    first = first_slots(class_names)
    normal = None if normal_slot is None else first[normal_slot]
    others = [first[slot] for slot in region_classes if first[slot] != normal]
    return list(dict.fromkeys([first[image_class], *others]))
