# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of labelled defects: which have a region, and how well the sets of classes of images agree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from anomalib_ncd.data.labels import Defect
from anomalib_ncd.metrics.discovery import share_of
from anomalib_ncd.regions.crops import crop

UNLABELLED = -1


def match_label_sets(preds: np.ndarray, target: np.ndarray) -> dict[int, int]:
    """Match discovered ``(N, K)`` with true classes ``(N, L)``, bool, so that as many labels as possible agree.

    With one class per image it is the matching of the accuracy. Discovered classes that are left over are absent.
    """
    preds, target = _checked(preds, target)
    agreements = preds.T.astype(np.int64) @ target.astype(np.int64)
    rows, columns = linear_sum_assignment(agreements, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def multilabel_report(preds: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Score sets of discovered classes ``(N, K)`` against sets of true ones ``(N, L)``, bool, after matching.

    ``micro_f1`` is over all labels of all images, ``macro_f1`` the mean over the true classes that occur (one that
    nothing matches scores 0), ``exact_match`` the share of images whose sets are equal. All are NaN for no images.
    """
    preds, target = _checked(preds, target)
    if not len(preds):
        return dict.fromkeys(("micro_f1", "macro_f1", "exact_match"), float("nan"))
    matches = match_label_sets(preds, target)
    matched = np.zeros_like(target)
    for pred, true in matches.items():
        matched[:, true] = preds[:, pred]
    num_unmatched = preds[:, [pred for pred in range(preds.shape[1]) if pred not in matches]].sum(axis=1)
    agreed, predicted, true = (matched & target).sum(axis=0), matched.sum(axis=0), target.sum(axis=0)
    total = predicted.sum() + num_unmatched.sum() + true.sum()
    by_class = 2 * agreed[true > 0] / (predicted + true)[true > 0]
    return {
        "micro_f1": float(2 * agreed.sum() / total) if total else 1.0,
        "macro_f1": float(by_class.mean()) if len(by_class) else 1.0,
        "exact_match": float(((matched == target).all(axis=1) & (num_unmatched == 0)).mean()),
    }


def _checked(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    preds, target = np.asarray(preds), np.asarray(target)
    if preds.ndim != 2 or target.ndim != 2 or len(preds) != len(target):
        msg = f"`preds` and `target` must have shapes (N, K) and (N, L), got {preds.shape} and {target.shape}."
        raise ValueError(msg)
    if preds.dtype != bool or target.dtype != bool:
        msg = f"`preds` and `target` must be bool, got {preds.dtype} and {target.dtype}; one column per class."
        raise ValueError(msg)
    return preds, target


def touches(
    boxes_xyxy: Sequence[Sequence[float]], masks: Sequence[np.ndarray], defects: Sequence[Defect]
) -> np.ndarray:
    """Find which regions' masks touch which defects of their image, ``(R, D)`` bool.

    Boxes are in pixels of the image; fractions are rounded. A mask ``(h, w)`` bool has the corner of the rounded box.
    """
    table = np.zeros((len(masks), len(defects)), dtype=bool)
    for row, (box, mask) in enumerate(zip(boxes_xyxy, masks, strict=True)):
        left, top = round(float(box[0])), round(float(box[1]))
        height, width = mask.shape
        for column, defect in enumerate(defects):
            x, y = left - defect.box_xyxy[0], top - defect.box_xyxy[1]
            table[row, column] = (mask & crop(defect.mask, (x, y, x + width, y + height))).any()
    return table


def region_classes(table: np.ndarray, classes: Sequence[int], normal: int) -> np.ndarray:
    """True class of each region of an image; that of `normal` on no defect, -1 on defects of several classes."""
    found = [{classes[column] for column in np.flatnonzero(row).tolist()} or {normal} for row in table]
    return np.array([next(iter(kinds)) if len(kinds) == 1 else UNLABELLED for kinds in found], dtype=np.int64)


def count_found(table: np.ndarray) -> dict[str, int]:
    """Count what was found of the defects of an image, out of :func:`touches`; counts of images add up.

    A defect has a region of its ``own`` that touches no other defect; a ``false`` region is on no defect.
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

    Returns ``count`` of defects, ``recall`` (share with a region of its own), ``touched`` (share that any region
    touches), ``num_regions``, ``false_alarms`` (share of the regions on no defect), and ``images``, see
    :func:`multilabel_report`. A share of nothing is ``None``. ``counts`` are those of all images, see
    :func:`count_found`; ``preds`` ``(N, K)`` bool the discovered classes of each image without *normal*, ``target``
    ``(N, L)`` bool its true ones without good.
    """
    num_defects, num_regions = counts["defects"], counts["regions"]
    return {
        "count": num_defects,
        "recall": share_of(counts["own"], num_defects),
        "touched": share_of(counts["touched"], num_defects),
        "num_regions": num_regions,
        "false_alarms": share_of(counts["false"], num_regions),
        "images": {"count": len(preds), **multilabel_report(preds, target)},
    }
