# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of images that may have several classes each: sets of discovered classes against sets of true ones."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchmetrics.utilities.data import dim_zero_cat

from anomalib_ncd.metrics.gathering import GatheringMetric


def match_label_sets(preds: np.ndarray, target: np.ndarray) -> dict[int, int]:
    """Match discovered ``(N, K)`` with true classes ``(N, L)``, bool, so that as many labels as possible agree.

    With one class per image it is the matching of the accuracy. Discovered classes that are left over are absent.

    Example:
        >>> match_label_sets(np.array([[1, 0], [1, 1]], bool), np.array([[0, 1], [1, 1]], bool))
        {0: 1, 1: 0}
    """
    preds, target = _checked(preds, target)
    agreements = preds.T.astype(np.int64) @ target.astype(np.int64)
    rows, columns = linear_sum_assignment(agreements, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def multilabel_report(preds: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Score sets of discovered classes ``(N, K)`` against sets of true ones ``(N, L)``, bool, after matching.

    ``micro_f1`` is over all labels of all images, ``macro_f1`` the mean over the true classes that occur (one that
    nothing matches scores 0), ``exact_match`` the share of images whose sets are equal. All are NaN for no images.

    Example:
        >>> multilabel_report(np.array([[1, 0], [1, 0]], bool), np.array([[1, 0], [1, 1]], bool))
        {'micro_f1': 0.8, 'macro_f1': 0.5, 'exact_match': 0.5}
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


class ClusterMultilabelF1(GatheringMetric):
    """Micro-F1 of sets of discovered classes after Hungarian matching with sets of true ones, from 0 to 1.

    Example:
        >>> metric = ClusterMultilabelF1()
        >>> metric.update(torch.tensor([[True, False], [True, True]]), torch.tensor([[False, True], [True, True]]))
        >>> metric.compute()
        tensor(1.)
    """

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add images: discovered classes ``(N, K)`` bool and true ones ``(N, L)`` bool."""
        _checked(preds.cpu().numpy(), target.cpu().numpy())
        self.preds.append(preds.detach())
        self.target.append(target.detach())

    def compute(self) -> torch.Tensor:
        """Score what was gathered; NaN for nothing."""
        if not len(self.preds):
            return torch.tensor(float("nan"), device=self.device)
        preds, target = (dim_zero_cat(state).cpu().numpy() for state in (self.preds, self.target))
        return torch.tensor(multilabel_report(preds, target)["micro_f1"], device=self.device)


def _checked(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both, or raise."""
    preds, target = np.asarray(preds), np.asarray(target)
    if preds.ndim != 2 or target.ndim != 2 or len(preds) != len(target):
        msg = f"`preds` and `target` must have shapes (N, K) and (N, L), got {preds.shape} and {target.shape}."
        raise ValueError(msg)
    if preds.dtype != bool or target.dtype != bool:
        msg = f"`preds` and `target` must be bool, got {preds.dtype} and {target.dtype}; one column per class."
        raise ValueError(msg)
    return preds, target
