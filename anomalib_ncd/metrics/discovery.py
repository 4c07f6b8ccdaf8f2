# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of discovered classes against labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from anomalib_ncd.metrics.matching import clustering_accuracy, match_classes, matched_macro_f1


def clustering_report(preds: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Score discovered classes against true ones, ``(N,)`` integer each; true ones below 0 are left out.

    Accuracy and macro-F1 are after Hungarian matching. All are NaN where nothing is labelled.

    Example:
        >>> clustering_report(np.array([3, 3, 5, 5, 5]), np.array([1, 1, 0, 0, -1]))
        {'nmi': 1.0, 'ari': 1.0, 'accuracy': 1.0, 'macro_f1': 1.0}
    """
    preds, target = labelled(preds, target)
    return {
        "nmi": nmi(preds, target),
        "ari": ari(preds, target),
        "accuracy": clustering_accuracy(preds, target),
        "macro_f1": matched_macro_f1(preds, target),
    }


def labelled(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out samples whose true class is below 0."""
    preds, target = np.asarray(preds), np.asarray(target)
    if preds.ndim != 1 or preds.shape != target.shape:
        msg = f"`preds` and `target` must both have shape (N,), got {preds.shape} and {target.shape}; flatten them."
        raise ValueError(msg)
    is_labelled = target >= 0
    return preds[is_labelled], target[is_labelled]


def nmi(preds: np.ndarray, target: np.ndarray) -> float:
    """Normalised mutual information of two ``(N,)`` clusterings, from 0 to 1; NaN for none."""
    return float(normalized_mutual_info_score(target, preds)) if len(target) else float("nan")


def ari(preds: np.ndarray, target: np.ndarray) -> float:
    """Adjusted Rand index of two ``(N,)`` clusterings, up to 1, 0 for chance; NaN for none."""
    return float(adjusted_rand_score(target, preds)) if len(target) else float("nan")


def discovery_report(
    preds: np.ndarray,
    target: np.ndarray,
    pred_names: Sequence[str],
    target_names: Sequence[str],
    normal_label: str = "good",
) -> dict[str, Any]:
    """Score discovered classes against labels.

    Args:
        preds: Discovered class of each image or region, ``(N,)`` int.
        target: True class, ``(N,)`` int; what is negative is unlabelled and left out.
        pred_names: Name of each discovered class.
        target_names: Name of each true class.
        normal_label: True class of good images, which the scores over defects alone leave out.

    Returns:
        ``nmi``, ``ari``, ``accuracy`` (which equals micro-F1 after matching) and ``macro_f1`` over all, the same under
        ``defects`` over defects alone (matched anew), ``count``, ``matching`` from discovered to true names,
        and the ``confusion`` of true (outer) and discovered (inner) names.

    Example:
        >>> report = discovery_report(np.array([0, 0, 1]), np.array([1, 1, 0]), ["normal", "class_1"], ["good", "dent"])
        >>> report["accuracy"], report["matching"]
        (1.0, {'normal': 'dent', 'class_1': 'good'})
    """
    preds, target = labelled(preds, target)
    if len(target) == 0:
        return {"count": 0}
    is_defect = np.array([target_names[class_id] != normal_label for class_id in target])
    matching = {pred_names[p]: target_names[t] for p, t in sorted(match_classes(preds, target).items())}
    confusion = {
        target_names[t]: {pred_names[p]: int(((target == t) & (preds == p)).sum()) for p in np.unique(preds)}
        for t in np.unique(target)
    }
    report: dict[str, Any] = {"count": len(target), **clustering_report(preds, target)}
    if is_defect.any():
        report["defects"] = {"count": int(is_defect.sum()), **clustering_report(preds[is_defect], target[is_defect])}
    return report | {"matching": matching, "confusion": confusion}


def normal_report(is_predicted: np.ndarray, is_good: np.ndarray) -> dict[str, int | float | None]:
    """Score *normal* as a detector of false alarms, out of ``(N,)`` bool of images or regions.

    Returns:
        ``false_alarms`` and ``predicted``, the numbers of good ones and of those predicted to be normal; ``recall`` and
        ``precision`` of these; ``defects_lost``, the share of the defective ones that are predicted to be normal. A
        share of nothing is ``None``.
    """
    is_predicted, is_good = np.asarray(is_predicted, dtype=bool), np.asarray(is_good, dtype=bool)
    if is_predicted.ndim != 1 or is_predicted.shape != is_good.shape:
        msg = f"`is_predicted` and `is_good` must both have shape (N,), got {is_predicted.shape} and {is_good.shape}."
        raise ValueError(msg)
    both = int((is_predicted & is_good).sum())
    good, predicted = int(is_good.sum()), int(is_predicted.sum())
    return {
        "false_alarms": good,
        "predicted": predicted,
        "recall": share_of(both, good),
        "precision": share_of(both, predicted),
        "defects_lost": share_of(predicted - both, len(is_good) - good),
    }


def share_of(part: int, whole: int) -> float | None:
    """A part of a whole; ``None`` where there is no whole."""
    return part / whole if whole else None
