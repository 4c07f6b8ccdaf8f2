# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""All figures of a run's health at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomalib_ncd.metrics.health.agreement import agreement_with, pairwise_agreement, resampled_clusterings
from anomalib_ncd.metrics.health.separation import neighbour_agreement, silhouette
from anomalib_ncd.metrics.health.shares import class_shares, effective_number, empty_mask_share, normal_separation

NAN = float("nan")


@dataclass(frozen=True)
class RunEvidence:
    """What the figures are computed from, for R regions.

    Attributes:
        preds: ``(R,)`` int, predicted class of each region, from 0 to `num_classes` - 1.
        num_classes: Number of classes.
        features: ``(R, D)`` float, a description of the regions that doesn't depend on the run's training; ``None``
            where there is none.
        scores: ``(R,)`` float in [0, 1], the detector's region scores.
        areas: ``(R,)`` int, mask pixels; 0 for an empty mask.
        confidences: ``(R,)`` float in [0, 1], probability of the predicted class.
        is_normal: ``(R,)`` bool, which regions are predicted to be normal; ``None`` without such a class.
        head_preds: ``(H, R)`` int, class by each head; ``None`` where there is only one opinion.
    """

    preds: np.ndarray
    num_classes: int
    features: np.ndarray | None
    scores: np.ndarray
    areas: np.ndarray
    confidences: np.ndarray
    is_normal: np.ndarray | None = None
    head_preds: np.ndarray | None = None


def health_figures(evidence: RunEvidence) -> dict[str, float]:
    """Compute all figures; NaN where one has no meaning for the run.

    Args:
        evidence: Predictions and features of the regions.

    Returns:
        Figures under the names of :data:`~anomalib_ncd.metrics.health.verdicts.FIGURES`, and ``effective_number``.
    """
    shares = class_shares(evidence.preds, evidence.num_classes)
    has_regions = len(evidence.preds) > 0
    return {
        **_by_features(evidence),
        "head_agreement": NAN if evidence.head_preds is None else pairwise_agreement(evidence.head_preds),
        "confidence": float(evidence.confidences.mean()) if has_regions else NAN,
        "smallest_class": float(shares.min()) if has_regions else NAN,
        "largest_class": float(shares.max()) if has_regions else NAN,
        "effective_number": effective_number(shares) if has_regions else NAN,
        "effective_share": effective_number(shares) / evidence.num_classes if has_regions else NAN,
        "empty_masks": empty_mask_share(evidence.areas),
        "normal_separation": (
            NAN if evidence.is_normal is None else normal_separation(evidence.scores, evidence.is_normal)
        ),
    }


def _by_features(evidence: RunEvidence) -> dict[str, float]:
    """Figures in the space of features."""
    num_used = len(np.unique(evidence.preds))
    if evidence.features is None or num_used < 2:
        return dict.fromkeys(("neighbour_agreement", "silhouette", "resample_stability", "resample_agreement"), NAN)
    clusterings = resampled_clusterings(evidence.features, num_used)
    return {
        "neighbour_agreement": neighbour_agreement(evidence.features, evidence.preds),
        "silhouette": silhouette(evidence.features, evidence.preds),
        "resample_stability": pairwise_agreement(clusterings),
        "resample_agreement": agreement_with(clusterings, evidence.preds),
    }
