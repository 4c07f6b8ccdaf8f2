# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How well classes are apart in a space of features."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

MAX_REGIONS = 2000  # for which all distances are computed


def silhouette(features: np.ndarray, preds: np.ndarray) -> float:
    """Mean silhouette of classes by the distances of features of norm 1 (Rousseeuw, 1987).

    Args:
        features: ``(N, D)`` float, finite.
        preds: ``(N,)`` int.

    Returns:
        From -1 to 1; NaN unless there are at least two classes and fewer classes than samples. Of more than 2,000
        samples a random part is measured.

    Raises:
        ValueError: If the shapes don't agree.

    Example:
        >>> silhouette(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), np.array([0, 0, 1, 1]))
        1.0
    """
    rows, preds = _part(*_checked(features, preds))
    if not 1 < len(np.unique(preds)) < len(preds):
        return float("nan")
    return float(silhouette_score(rows, preds))


def neighbour_agreement(features: np.ndarray, preds: np.ndarray, num_neighbours: int = 5) -> float:
    """How often the nearest neighbours of a sample have its class, beyond chance.

    Corrected like Cohen's kappa: with p the share of neighbours of the same class, averaged over samples, and c the
    share that random neighbours would have, it is (p - c) / (1 - c).

    Args:
        features: ``(N, D)`` float, finite; compared at norm 1.
        preds: ``(N,)`` int.
        num_neighbours: Neighbours of each sample, itself apart; fewer where there are not so many.

    Returns:
        1 where neighbours always share their class, 0 for chance; NaN for one class or fewer than three samples. Of
        more than 2,000 samples a random part is measured.

    Raises:
        ValueError: If the shapes don't agree or the number of neighbours is below 1.

    Example:
        >>> features = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> neighbour_agreement(features, np.array([0, 0, 1, 1]), num_neighbours=1)
        1.0
    """
    rows, preds = _part(*_checked(features, preds))
    if num_neighbours < 1:
        msg = f"`num_neighbours` must be 1 or more, got {num_neighbours}."
        raise ValueError(msg)
    _, counts = np.unique(preds, return_counts=True)
    if len(rows) < 3 or len(counts) < 2:
        return float("nan")
    finder = NearestNeighbors(n_neighbors=min(num_neighbours, len(rows) - 1)).fit(rows)
    neighbours = finder.kneighbors(return_distance=False)  # without a query, a sample is no neighbour of its own
    observed = float((preds[neighbours] == preds[:, None]).mean())
    chance = float((counts * (counts - 1)).sum() / (len(rows) * (len(rows) - 1)))
    return (observed - chance) / (1 - chance)


def _checked(features: np.ndarray, preds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of norm 1, and classes."""
    features, preds = np.asarray(features, dtype=np.float64), np.asarray(preds)
    if features.ndim != 2 or preds.shape != features.shape[:1]:
        msg = f"`features` and `preds` must have shapes (N, D) and (N,), got {features.shape} and {preds.shape}."
        raise ValueError(msg)
    return (normalize(features) if len(features) else features), preds


def _part(rows: np.ndarray, preds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No more samples than distances can be computed for."""
    if len(rows) <= MAX_REGIONS:
        return rows, preds
    part = np.random.default_rng(0).permutation(len(rows))[:MAX_REGIONS]
    return rows[part], preds[part]
