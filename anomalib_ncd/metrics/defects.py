# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions against labelled defects: which region lies on which defect, and how many defects were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anomalib_ncd.data.defects import Defect
from anomalib_ncd.metrics.multilabel import multilabel_report

UNLABELLED = -1


def touches(
    boxes_xyxy: Sequence[Sequence[float]], masks: Sequence[np.ndarray], defects: Sequence[Defect]
) -> np.ndarray:
    """Find which regions' masks touch which defects of their image, ``(R, D)`` bool.

    Boxes are in pixels of the image; fractions are rounded. A mask ``(h, w)`` bool has the corner of the rounded box.

    Example:
        >>> defect = Defect("dent", (2, 2, 4, 4), np.ones((2, 2), bool))
        >>> touches([(0, 0, 3, 3), (0, 0, 2, 2)], [np.ones((3, 3), bool), np.ones((2, 2), bool)], [defect])
        array([[ True],
               [False]])
    """
    table = np.zeros((len(masks), len(defects)), dtype=bool)
    for row, (box, mask) in enumerate(zip(boxes_xyxy, masks, strict=True)):
        corner = (round(float(box[0])), round(float(box[1])))
        for column, defect in enumerate(defects):
            table[row, column] = _overlap(corner, mask, defect.box_xyxy[:2], defect.mask)
    return table


def region_classes(table: np.ndarray, classes: Sequence[int], normal: int) -> np.ndarray:
    """True class of each region of an image; that of `normal` on no defect, -1 on defects of several classes.

    Example:
        >>> region_classes(np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]], bool), [1, 1, 2], normal=0)
        array([ 1, -1,  0])
    """
    found = [{classes[column] for column in np.flatnonzero(row).tolist()} or {normal} for row in table]
    return np.array([next(iter(kinds)) if len(kinds) == 1 else UNLABELLED for kinds in found], dtype=np.int64)


def count_found(table: np.ndarray) -> dict[str, int]:
    """Count what was found of the defects of an image, out of :func:`touches`; counts of images add up.

    A defect has a region of its ``own`` that touches no other defect; a ``false`` region is on no defect.

    Example:
        >>> count_found(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], bool))
        {'defects': 3, 'touched': 3, 'own': 1, 'regions': 3, 'false': 1}
    """
    num_touched = table.sum(axis=1)
    return {
        "defects": table.shape[1],
        "touched": int(table.any(axis=0).sum()),
        "own": int(table[num_touched == 1].any(axis=0).sum()),
        "regions": table.shape[0],
        "false": int((num_touched == 0).sum()),
    }


def defect_report(counts: dict[str, int], preds: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """Say how many defects were found, and how well the sets of classes of images agree.

    Args:
        counts: Those of all images, see :func:`count_found`.
        preds: ``(N, K)`` bool, discovered classes of each image, without *normal*.
        target: ``(N, L)`` bool, true classes of each image, without good.

    Returns:
        ``count`` of defects, ``recall`` (share with a region of its own), ``touched`` (share that any region touches),
        ``num_regions``, ``false_alarms`` (share of the regions on no defect; ``None`` without regions), and ``images``
        of :func:`~anomalib_ncd.metrics.multilabel.multilabel_report`.
    """
    num_defects, num_regions = counts["defects"], counts["regions"]
    return {
        "count": num_defects,
        "recall": counts["own"] / num_defects if num_defects else None,
        "touched": counts["touched"] / num_defects if num_defects else None,
        "num_regions": num_regions,
        "false_alarms": counts["false"] / num_regions if num_regions else None,
        "images": {"count": len(preds), **multilabel_report(preds, target)},
    }


def _overlap(corner: Sequence[int], mask: np.ndarray, other_corner: Sequence[int], other: np.ndarray) -> bool:
    """Whether two masks, each at its corner (left, top), share a pixel."""
    left, top = (max(one, two) for one, two in zip(corner, other_corner, strict=True))
    right = min(corner[0] + mask.shape[1], other_corner[0] + other.shape[1])
    bottom = min(corner[1] + mask.shape[0], other_corner[1] + other.shape[0])
    if left >= right or top >= bottom:
        return False
    first, second = (
        part[top - y : bottom - y, left - x : right - x] for part, (x, y) in ((mask, corner), (other, other_corner))
    )
    return bool((first & second).any())
