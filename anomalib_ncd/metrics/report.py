# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""All scores of a clustering at once."""

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from anomalib_ncd.metrics.matching import clustering_accuracy, matched_macro_f1


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
    """Leave out samples whose true class is below 0.

    Example:
        >>> labelled(np.array([3, 5]), np.array([1, -1]))
        (array([3]), array([1]))
    """
    preds, target = np.asarray(preds), np.asarray(target)
    if preds.ndim != 1 or preds.shape != target.shape:
        msg = f"`preds` and `target` must both have shape (N,), got {preds.shape} and {target.shape}; flatten them."
        raise ValueError(msg)
    is_labelled = target >= 0
    return preds[is_labelled], target[is_labelled]


def nmi(preds: np.ndarray, target: np.ndarray) -> float:
    """Normalised mutual information of two ``(N,)`` clusterings, from 0 to 1; NaN for none.

    Example:
        >>> nmi(np.array([3, 3, 5]), np.array([1, 1, 0]))
        1.0
    """
    return float(normalized_mutual_info_score(target, preds)) if len(target) else float("nan")


def ari(preds: np.ndarray, target: np.ndarray) -> float:
    """Adjusted Rand index of two ``(N,)`` clusterings, up to 1, 0 for chance; NaN for none.

    Example:
        >>> ari(np.array([3, 3, 5]), np.array([1, 1, 0]))
        1.0
    """
    return float(adjusted_rand_score(target, preds)) if len(target) else float("nan")
