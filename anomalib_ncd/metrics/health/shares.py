# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Figures about the sizes of classes, about the detector's masks, and about regions called normal."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score


def class_shares(preds: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class.

    Args:
        preds: ``(N,)`` int, from 0 to `num_classes` - 1.
        num_classes: Number of classes.

    Returns:
        ``(num_classes,)`` float that sum to 1; zeros for no samples.

    Raises:
        ValueError: If a class is out of range.

    Example:
        >>> class_shares(np.array([0, 0, 0, 2]), num_classes=3)
        array([0.75, 0.  , 0.25])
    """
    preds = np.asarray(preds)
    if preds.size and not (preds.min() >= 0 and preds.max() < num_classes):
        msg = f"`preds` must be from 0 to {num_classes - 1}, got {preds.min()} to {preds.max()}."
        raise ValueError(msg)
    return np.bincount(preds, minlength=num_classes) / max(1, len(preds))


def effective_number(shares: np.ndarray) -> float:
    """Number of classes of equal size that would be as diverse: the exponential of the entropy (Hill, 1973).

    Args:
        shares: ``(K,)`` float that sum to 1.

    Returns:
        From 1 to K; 0 for no shares at all.

    Example:
        >>> effective_number(np.array([0.5, 0.5, 0.0]))
        2.0
    """
    shares = np.asarray(shares, dtype=np.float64)
    shares = shares[shares > 0]
    return float(np.exp2(-(shares * np.log2(shares)).sum())) if len(shares) else 0.0


def empty_mask_share(areas: np.ndarray) -> float:
    """Share of regions without a mask: those of images in which no main element was found.

    Args:
        areas: ``(N,)``, mask pixels of each region.

    Returns:
        From 0 to 1; NaN for no regions.

    Example:
        >>> empty_mask_share(np.array([0, 12, 30, 7]))
        0.25
    """
    areas = np.asarray(areas)
    return float((areas == 0).mean()) if len(areas) else float("nan")


def normal_separation(scores: np.ndarray, is_normal: np.ndarray) -> float:
    """How surely a region called normal has a lower anomaly score than one that isn't: an AUROC.

    Args:
        scores: ``(N,)`` float, region scores of the detector.
        is_normal: ``(N,)`` bool.

    Returns:
        From 0 to 1, 0.5 for chance; NaN where all or none are normal.

    Raises:
        ValueError: If the shapes don't agree.

    Example:
        >>> normal_separation(np.array([0.1, 0.6, 0.3, 0.9]), np.array([True, True, False, False]))
        0.75
    """
    scores, is_normal = np.asarray(scores), np.asarray(is_normal, dtype=bool)
    if scores.ndim != 1 or scores.shape != is_normal.shape:
        msg = f"`scores` and `is_normal` must both have shape (N,), got {scores.shape} and {is_normal.shape}."
        raise ValueError(msg)
    if is_normal.all() or not is_normal.any():
        return float("nan")
    return float(roc_auc_score(~is_normal, scores))
