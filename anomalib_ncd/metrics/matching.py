# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Matching of discovered classes with true ones, and scores that need it.

Discovered classes have numbers of no meaning. They are matched one to one with the true classes so that as many
predictions as possible agree (the Hungarian method); a class left over on either side agrees with nothing.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment


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
    """Rename predicted classes to the true classes that they match, ``(N,)`` int64; those left over are `unmatched`.

    Example:
        >>> matched_predictions(np.array([4, 4, 7, 7, 9]), np.array([1, 1, 0, 0, 0]))
        array([ 1,  1,  0,  0, -1])
    """
    preds, target = _check_labels(preds, target)
    matches = match_classes(preds, target)
    return np.array([matches.get(pred, unmatched) for pred in preds.tolist()], dtype=np.int64)


def clustering_accuracy(preds: np.ndarray, target: np.ndarray) -> float:
    """Part of the predictions that agree after matching, 0 to 1 or NaN for none; equal to micro-F1.

    Example:
        >>> clustering_accuracy(np.array([4, 4, 7, 7, 9]), np.array([1, 1, 0, 0, 0]))
        0.8
    """
    is_correct = _correct(preds, target)[0]
    return float(is_correct.mean()) if len(is_correct) else float("nan")


def matched_macro_f1(preds: np.ndarray, target: np.ndarray) -> float:
    """Mean over the true classes of F1 after matching; a class that nothing matches scores 0; NaN for no predictions.

    Example:
        >>> matched_macro_f1(np.array([4, 4, 7, 7, 9]), np.array([1, 1, 0, 0, 0]))
        0.9
    """
    is_correct, matches = _correct(preds, target)
    if not len(is_correct):
        return float("nan")
    pred_of = {true: pred for pred, true in matches.items()}
    preds, target = np.asarray(preds), np.asarray(target)
    scores = []
    for true in np.unique(target).tolist():
        is_true = target == true
        num_predicted = int((preds == pred_of[true]).sum()) if true in pred_of else 0
        scores.append(2 * int(is_correct[is_true].sum()) / (num_predicted + int(is_true.sum())))
    return float(np.mean(scores))


def _correct(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Tell which predictions agree after matching, and how classes were matched."""
    preds, target = _check_labels(preds, target)
    matches = match_classes(preds, target)
    pairs = zip(preds.tolist(), target.tolist(), strict=True)
    return np.array([pred in matches and matches[pred] == true for pred, true in pairs], dtype=bool), matches


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
