# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Classes that follow a user's corrections: clusters are the prior, corrections say where it is wrong.

Where the prior and the user differ is carried to regions that are alike, as "correct and smooth" does on graphs (Huang
et al., "Combining Label Propagation and Simple Models Out-performs Graph Neural Networks", ICLR 2021), by regression
with a Gaussian process (Rasmussen and Williams, 2006, chapter 2). Corrected ones stay where they were put, as in the
semi-supervised k-means of generalised category discovery (Vaze et al., CVPR 2022).
"""

import numpy as np
from scipy.optimize import minimize

from anomalib_ncd.regions.classes.prediction import LOGIT_TEMPERATURE, novel_probabilities
from anomalib_ncd.results.label_order import unit_rows

STAY_NEAR = 0.003
FITTING_STEPS = 100
NOISE, NOISE_OF_FEW = 0.1, 4.0
"""How far single corrections are taken to stray, and how much more where they are few: over their number."""
_TINY = 1e-9


def constrained(probabilities: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Take away the probability of classes that a region is not of; rows ``(R, K)`` float32 sum to 1.

    A row is even over what is allowed where nothing of it was probable.
    """
    kept = np.where(allowed, probabilities, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    even = allowed / allowed.sum(axis=1, keepdims=True)
    return np.where(total > _TINY, kept / np.maximum(total, _TINY), even).astype(np.float32)


def spread_corrections(
    features: np.ndarray, prior: np.ndarray, allowed: np.ndarray, appearance: np.ndarray | None = None
) -> np.ndarray:
    """Say of all regions what clusters say, but for what corrections change of it near them.

    The difference between corrections and the prior is a Gaussian process over regions: what is linear and what is
    quadratic in their directions, seen from the mean one, by features ``(R, D)`` and by ``appearance`` ``(R, F)``, if
    given. Returns ``(R, K)`` float32; rows sum to 1. ``prior`` ``(R, K)`` float is what clusters say, ``allowed`` ``(R,
    K)`` bool what corrections say: rows without a correction allow everything.
    """
    corrected = np.flatnonzero(~allowed.all(axis=1))
    if not len(corrected):
        return constrained(prior, allowed)
    alike = _alike(features, corrected)
    if appearance is not None:
        alike += _alike(appearance, corrected)
    wrong = constrained(prior[corrected], allowed[corrected]) - prior[corrected]
    noise = NOISE + NOISE_OF_FEW / len(corrected)
    found = prior + alike @ np.linalg.solve(alike[corrected] + noise * np.eye(len(corrected)), wrong)
    return constrained(np.maximum(found, 0), allowed)


def refine_prototypes(
    features: np.ndarray, prior: np.ndarray, allowed: np.ndarray, appearance: np.ndarray | None = None
) -> np.ndarray:
    """Fit one direction per class to what corrections and clusters say of the regions.

    Returns ``(K, D)`` float32 of norm 1: prototypes of a classifier by cosine. ``ValueError`` if the shapes differ, or
    no class is allowed to a region. Features ``(R, D)`` float are of any norm; ``prior`` ``(R, K)`` float is the
    probability of each class, 0 in the column of a class that the user made; ``allowed`` ``(R, K)`` bool the classes
    that each region may be of, all where nothing is corrected; regions that look alike by ``appearance`` ``(R, F)``
    follow corrections, too.
    """
    if prior.shape != allowed.shape or len(prior) != len(features) or not allowed.any(axis=1).all():
        shapes = f"{features.shape}, {prior.shape} and {allowed.shape}"
        msg = f"`features`, `prior`, `allowed` must be (R, D), (R, K), (R, K), a class allowed to each, got {shapes}."
        raise ValueError(msg)
    rows = unit_rows(features)
    targets = spread_corrections(features, prior, allowed, appearance).astype(np.float64) / len(rows)
    # A class that nothing points to starts, and stays, away from all regions.
    sums = targets.T @ rows
    sums[targets.sum(axis=0) <= _TINY] = -rows.sum(axis=0)
    return _fit(rows, targets, unit_rows(sums)).astype(np.float32)


def probabilities_of(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Class probabilities ``(R, K)`` float32 of features ``(R, D)`` by their cosines to prototypes ``(K, D)``."""
    return novel_probabilities(unit_rows(features) @ unit_rows(prototypes).T, 0)


def _alike(features: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """How alike all regions ``(R, D)`` are to some of them, ``(R, C)`` in [-0.25, 2]."""
    rows = unit_rows(features)
    rows = unit_rows(rows - rows.mean(axis=0)).astype(np.float32)
    cosines = rows @ rows[chosen].T
    return cosines + cosines**2


def _fit(rows: np.ndarray, targets: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Directions of least cross-entropy to weighted targets, held near the start."""
    totals = targets.sum(axis=1, keepdims=True)
    rows = rows.astype(np.float32)  # what takes the time, in half of it; sums stay in double precision

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat.reshape(start.shape)
        norms = np.linalg.norm(weight, axis=1, keepdims=True)
        directions = weight / norms
        logits = (rows @ directions.T.astype(np.float32)).astype(np.float64) / LOGIT_TEMPERATURE
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        moved = directions - start
        value = STAY_NEAR * (moved**2).sum() - (targets * log_probabilities).sum()
        errors = np.exp(log_probabilities) * totals - targets
        slope = errors.T.astype(np.float32) @ rows / LOGIT_TEMPERATURE + 2 * STAY_NEAR * moved
        slope -= (slope * directions).sum(axis=1, keepdims=True) * directions
        return float(value), (slope / norms).ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": FITTING_STEPS})
    return unit_rows(found.x.reshape(start.shape))
