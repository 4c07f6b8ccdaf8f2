# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Classes that follow a user's corrections: clusters are the prior, corrections are constraints and labels.

Seeded clusters (Basu et al., "Semi-supervised Clustering by Seeding", ICML 2002), whose labelled members stay where the
user put them as in the semi-supervised k-means of generalised category discovery (Vaze et al., CVPR 2022), with what
the clusters say of all other regions as soft labels that fade near the user's, as in label spreading (Zhou et al.,
NIPS 2003).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from anomalib_ncd.regions.classes.merging import novel_probabilities
from anomalib_ncd.results.label_order import unit_rows

PRIOR_WEIGHT = 30.0
WEIGHT_RANGE = (20.0, 150.0)
ASSUMED_AGREEMENT, ASSUMED_COUNT = 0.6, 5
STAY_NEAR = 0.03
REACH, REACH_COUNT = 0.2, 0.1
FITTING_STEPS = 100
_TINY = 1e-9


def constrained(probabilities: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Take away the probability of classes that a region is not of; rows ``(R, K)`` float32 sum to 1.

    A row is even over what is allowed where nothing of it was probable.

    Example:
        >>> constrained(np.array([[0.5, 0.25, 0.25]]), np.array([[False, True, True]]))
        array([[0. , 0.5, 0.5]], dtype=float32)
    """
    kept = np.where(allowed, probabilities, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    even = allowed / allowed.sum(axis=1, keepdims=True)
    return np.where(total > _TINY, kept / np.maximum(total, _TINY), even).astype(np.float32)


def correction_weights(features: np.ndarray, prior: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """How much each region counts, ``(R,)``: 1 where it is corrected, else as corrections agree with its cluster.

    All other regions together count as much as 20 to 150 corrections: the more, the more of all corrections agree with
    their clusters; 45 where nothing is corrected. A single one counts the less, the more alike it is to regions of its
    cluster that were corrected away from it.
    """
    cluster, corrected = prior.argmax(axis=1), ~allowed.all(axis=1)
    agrees = allowed[corrected, cluster[corrected]]
    share = (agrees.sum() + ASSUMED_AGREEMENT * ASSUMED_COUNT) / (len(agrees) + ASSUMED_COUNT)
    together = np.clip(PRIOR_WEIGHT * share / max(1 - share, _TINY), *WEIGHT_RANGE)
    rows = unit_rows(features)
    rows = unit_rows(rows - rows.mean(axis=0))
    near = np.exp((rows @ rows[corrected].T - 1) / REACH) * (cluster[:, None] == cluster[corrected])
    local = (near @ agrees + ASSUMED_AGREEMENT * REACH_COUNT) / (near.sum(axis=1) + REACH_COUNT) / ASSUMED_AGREEMENT
    return np.where(corrected, 1.0, local * together / max(int((~corrected).sum()), 1))


def refine_prototypes(
    features: np.ndarray, prior: np.ndarray, allowed: np.ndarray, temperature: float = 0.1
) -> np.ndarray:
    """Fit one direction per class to corrections and, with less weight, to what clusters say of all other regions.

    Args:
        features: ``(R, D)`` float, of any norm.
        prior: ``(R, K)`` float, probability of each class; 0 in the column of a class that the user made.
        allowed: ``(R, K)`` bool, the classes that each region may be of; everything where nothing is corrected.
        temperature: What cosines are divided by.

    Returns:
        ``(K, D)`` float32 of norm 1: prototypes of a classifier by cosine.

    Raises:
        ValueError: If the shapes don't agree or a region may be of no class.

    Example:
        >>> rows, even = np.eye(3), np.full((3, 2), 0.5)
        >>> allowed = np.array([[True, False], [False, True], [True, True]])
        >>> (rows @ refine_prototypes(rows, even, allowed).T)[:2].argmax(axis=1).tolist()
        [0, 1]
    """
    if prior.shape != allowed.shape or len(prior) != len(features) or not allowed.any(axis=1).all():
        shapes = f"{features.shape}, {prior.shape} and {allowed.shape}"
        msg = (
            f"`features`, `prior` and `allowed` must be (R, D), (R, K), (R, K), a class allowed to each, got {shapes}."
        )
        raise ValueError(msg)
    rows = unit_rows(features)
    weights = correction_weights(features, prior, allowed)
    targets = constrained(prior, allowed).astype(np.float64) * (weights / weights.sum())[:, None]
    # A class that nothing points to starts, and stays, away from all regions.
    sums = targets.T @ rows
    sums[targets.sum(axis=0) <= _TINY] = -rows.sum(axis=0)
    return _fit(rows, targets, unit_rows(sums), temperature).astype(np.float32)


def probabilities_of(features: np.ndarray, prototypes: np.ndarray, temperature: float) -> np.ndarray:
    """Class probabilities ``(R, K)`` float32 of features ``(R, D)`` by their cosines to prototypes ``(K, D)``."""
    return novel_probabilities(unit_rows(features) @ unit_rows(prototypes).T, 0, temperature)


def _fit(rows: np.ndarray, targets: np.ndarray, start: np.ndarray, temperature: float) -> np.ndarray:
    """Directions of least cross-entropy to weighted targets, held near the start."""
    totals = targets.sum(axis=1, keepdims=True)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat.reshape(start.shape)
        norms = np.linalg.norm(weight, axis=1, keepdims=True)
        directions = weight / norms
        logits = rows @ directions.T / temperature
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        moved = directions - start
        value = STAY_NEAR * (moved**2).sum() - (targets * log_probabilities).sum()
        slope = (np.exp(log_probabilities) * totals - targets).T @ rows / temperature + 2 * STAY_NEAR * moved
        slope -= (slope * directions).sum(axis=1, keepdims=True) * directions
        return float(value), (slope / norms).ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": FITTING_STEPS})
    return unit_rows(found.x.reshape(start.shape))
