# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of discovered classes against labels.

Discovered classes have numbers of no meaning, so they are matched one to one with the true ones: as many predictions as
possible agree (the Hungarian method); a class left over on either side agrees with nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score


def clustering_report(preds: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Score discovered classes against true ones, ``(N,)`` integer each; true ones below 0 are left out.

    Accuracy and macro-F1 are after Hungarian matching. All are NaN where nothing is labelled.
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
    preds, target = check_labels(preds, target)
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

    Returns ``nmi``, ``ari``, ``accuracy`` (which equals micro-F1 after matching) and ``macro_f1`` over all, the same
    under ``defects`` over defects alone (matched anew), ``count``, ``matching`` from discovered to true names, and the
    ``confusion`` of true (outer) and discovered (inner) names. ``preds`` and ``target`` ``(N,)`` int are the discovered
    and the true class of each image or region, of which negative ones are unlabelled and left out; ``pred_names`` and
    ``target_names`` name the classes; scores over defects alone leave the true class ``normal_label`` out.
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

    Returns ``false_alarms`` and ``predicted``, the numbers of good ones and of those predicted to be normal; ``recall``
    and ``precision`` of these; ``defects_lost``, the share of the defective ones that are predicted to be normal. A
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


def match_classes(preds: np.ndarray, target: np.ndarray) -> dict[int, int]:
    """Match predicted with true classes, ``(N,)`` integer each, for the highest agreement.

    Predicted classes that are left over are absent. ``ValueError``, as below, for arrays of other kinds or lengths.
    """
    preds, target = check_labels(preds, target)
    pred_classes, pred_index = np.unique(preds, return_inverse=True)
    true_classes, true_index = np.unique(target, return_inverse=True)
    confusion = np.zeros((len(pred_classes), len(true_classes)), dtype=np.int64)
    np.add.at(confusion, (pred_index, true_index), 1)
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    return dict(zip(pred_classes[rows].tolist(), true_classes[columns].tolist(), strict=True))


def matched_predictions(preds: np.ndarray, target: np.ndarray, unmatched: int = -1) -> np.ndarray:
    """Rename predicted classes to the true classes that they match, ``(N,)`` int64; those left over are `unmatched`."""
    matches = match_classes(preds, target)
    return np.array([matches.get(pred, unmatched) for pred in np.asarray(preds).tolist()], dtype=np.int64)


def clustering_accuracy(preds: np.ndarray, target: np.ndarray) -> float:
    """Part of the predictions that agree after matching, 0 to 1 or NaN for none; equal to micro-F1."""
    matched, target = _matched(preds, target)
    return float((matched == target).mean()) if len(target) else float("nan")


def matched_macro_f1(preds: np.ndarray, target: np.ndarray) -> float:
    """Mean over the true classes of F1 after matching; a class that nothing matches scores 0; NaN for none."""
    matched, target = _matched(preds, target)
    if not len(target):
        return float("nan")
    return float(f1_score(target, matched, labels=np.unique(target), average="macro"))


def _matched(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions by the numbers of the true classes, those left over by a number of their own, and true classes."""
    preds, target = check_labels(preds, target)
    return matched_predictions(preds, target, unmatched=int(target.min(initial=0)) - 1), target


def check_labels(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class ids as arrays ``(N,)``; ``ValueError`` if they are of other shapes or types."""
    preds, target = np.asarray(preds), np.asarray(target)
    if preds.ndim != 1 or preds.shape != target.shape:
        shapes = f"{preds.shape} and {target.shape}"
        msg = f"`preds` and `target` must both have shape (N,), got {shapes}; pass class ids, not probabilities."
        raise ValueError(msg)
    for name, labels in (("preds", preds), ("target", target)):
        if labels.size and labels.dtype.kind not in "ui":
            msg = f"`{name}` must hold integer class ids, got {labels.dtype}; take the argmax of probabilities first."
            raise ValueError(msg)
    return preds, target
