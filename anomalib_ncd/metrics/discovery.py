# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of a discovery run against known labels, as they stand in ``metrics.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anomalib_ncd.metrics.matching import match_classes
from anomalib_ncd.metrics.report import clustering_report


def discovery_report(
    preds: np.ndarray,
    target: np.ndarray,
    pred_names: Sequence[str],
    target_names: Sequence[str],
    normal_label: str = "good",
) -> dict[str, Any]:
    """Score discovered classes against labels.

    Args:
        preds: Discovered class per image or region, ``(N,)`` int.
        target: True class, ``(N,)`` int; what is negative is unlabelled and left out.
        pred_names: Name of each discovered class.
        target_names: Name of each true class.
        normal_label: Name of the true class of good images, which the scores over defects alone leave out.

    Returns:
        ``nmi``, ``ari``, ``accuracy`` (which equals micro-F1 after matching) and ``macro_f1`` over all, the same under
        ``defects`` over defects alone (matched anew), ``count``, ``matching`` from discovered to true names,
        and the ``confusion`` of true (outer) and discovered (inner) names.

    Example:
        >>> report = discovery_report(np.array([0, 0, 1]), np.array([1, 1, 0]), ["normal", "class_1"], ["good", "dent"])
        >>> report["accuracy"], report["matching"]
        (1.0, {'normal': 'dent', 'class_1': 'good'})
    """
    known = target >= 0
    preds, target = preds[known], target[known]
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
        report["defects"] = {
            "count": int(is_defect.sum()),
            **clustering_report(preds[is_defect], target[is_defect]),
        }
    return report | {"matching": matching, "confusion": confusion}
