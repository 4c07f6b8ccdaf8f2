# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Discovered classes, whose numbers mean nothing, matched one to one with true ones, and scores that need it.

As many predictions as possible agree (the Hungarian method); a class left over on either side agrees with nothing.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import f1_score


def match_classes(preds: np.ndarray, target: np.ndarray) -> dict[int, int]:
    """Match predicted with true classes, ``(N,)`` integer each, for the highest agreement.

    Predicted classes that are left over are absent. ``ValueError``, as below, for arrays of other kinds or lengths.

    Example:
        >>> match_classes(np.array([4, 4, 7, 7, 9]), np.array([1, 1, 0, 0, 0]))
        {4: 1, 7: 0}
    """
    preds, target = _check_labels(preds, target)
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
    preds, target = _check_labels(preds, target)
    return matched_predictions(preds, target, unmatched=int(target.min(initial=0)) - 1), target


def _check_labels(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    preds, target = np.asarray(preds), np.asarray(target)
    if preds.ndim != 1 or preds.shape != target.shape:
        msg = f"`preds` and `target` must both have shape (N,), got {preds.shape} and {target.shape}; flatten them."
        raise ValueError(msg)
    for name, labels in (("preds", preds), ("target", target)):
        if labels.size and labels.dtype.kind not in "ui":
            msg = f"`{name}` must hold integer class ids, got {labels.dtype}; take the argmax of probabilities first."
            raise ValueError(msg)
    return preds, target
