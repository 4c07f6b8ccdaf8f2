# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How far partitions agree: those of several heads, or those of resampled data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from sklearn.metrics import adjusted_rand_score

NOT_DRAWN = -1
MAX_REGIONS = 2000  # of which a resample is drawn; more change no figure and take time


def pairwise_agreement(partitions: np.ndarray) -> float:
    """Mean adjusted Rand index of all pairs of partitions ``(P, N)`` int: up to 1, 0 for chance, NaN without pairs.

    Below 0 a sample is not part of a partition; a pair is compared over the samples that both have. The stability of
    clusterings of resamples tells how real clusters are: Ben-Hur, Elisseeff and Guyon, "A stability based method for
    discovering structure in clustered data" (PSB 2002).

    Example:
        >>> pairwise_agreement(np.array([[0, 0, 1, 1], [5, 5, 3, 3], [7, 7, 2, -1]]))
        1.0
    """
    partitions = np.asarray(partitions)
    if partitions.ndim != 2:
        msg = f"`partitions` must have shape (P, N), got {partitions.shape}; stack one row per partition."
        raise ValueError(msg)
    pairs = [_shared_ari(one, other) for one, other in combinations(partitions, 2)]
    known = [value for value in pairs if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def resampled_clusterings(
    features: np.ndarray,
    cluster: Callable[[np.ndarray], np.ndarray],
    num_resamples: int = 5,
    share: float = 0.8,
    seed: int = 0,
) -> np.ndarray:
    """Cluster random parts of features ``(N, D)``: ``(num_resamples, N)`` int, -1 where a row is not in the part.

    Each part has a ``share`` of the rows, drawn without putting back; ``cluster`` gives ``(n,)`` int of ``(n, D)``.

    Example:
        >>> resampled_clusterings(np.array([[1.0], [0.0]]), lambda rows: rows[:, 0] > 0, num_resamples=1, share=1.0)
        array([[1, 0]])
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        msg = f"`features` must have shape (N, D), got {features.shape}."
        raise ValueError(msg)
    if not 0 < share <= 1:
        msg = f"`share` must be in (0, 1], got {share}."
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    size = round(share * min(len(features), MAX_REGIONS))
    found = np.full((num_resamples, len(features)), NOT_DRAWN)
    for number in range(num_resamples if size else 0):
        part = rng.permutation(len(features))[:size]
        found[number, part] = cluster(features[part])
    return found


def _shared_ari(one: np.ndarray, other: np.ndarray) -> float:
    """Adjusted Rand index over the samples of both; NaN for fewer than two."""
    shared = (one >= 0) & (other >= 0)
    return float(adjusted_rand_score(one[shared], other[shared])) if shared.sum() > 1 else float("nan")
