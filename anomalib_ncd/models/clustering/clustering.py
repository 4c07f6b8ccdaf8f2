# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The line without training: clusters of mask-guided features, to which a trained model is to be compared."""

import logging
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.preprocessing import normalize
from torch.nn import functional as F

from anomalib_ncd.models.clustering.directions import unit_rows

logger = logging.getLogger(__name__)

ClusterMethod = Literal["kmeans", "ward"]

MAX_CLUSTERED = 2000
"""Of more regions, so many are clustered where that will do: time and memory grow with the square of them."""


def cluster_features(
    features: npt.NDArray[np.floating] | torch.Tensor,
    num_clusters: int,
    method: ClusterMethod = "ward",
    *,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Group regions by their features, scaled to norm 1.

    With fewer distinct features than ``num_clusters`` there are as many clusters as distinct features, and a warning
    is logged.

    Args:
        features: ``(R, D)``, finite; R may be 0.
        num_clusters: Number of clusters to look for.
        method: ``"ward"`` (hierarchical, without randomness) or ``"kmeans"`` (best of 10 starts).
        seed: Seed of k-means.

    Returns:
        Labels ``(R,)``, numbered in the order in which they first appear.

    Raises:
        ValueError: If the features are not a finite (R, D) array, or an argument is out of its range.

    Example:
        >>> cluster_features(np.array([[0.0, 1.0], [1.0, 0.1], [0.1, 1.0], [1.0, 0.0]]), num_clusters=2)
        array([0, 1, 0, 1])
    """
    rows = _as_finite_rows(features)
    if num_clusters < 1:
        msg = f"`num_clusters` must be at least 1, got {num_clusters}."
        raise ValueError(msg)
    if method not in get_args(ClusterMethod):
        msg = f"`method` must be one of {get_args(ClusterMethod)}, got {method!r}."
        raise ValueError(msg)
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    rows = normalize(rows)
    count = _feasible_count(rows, num_clusters)
    if count == 1:
        return np.zeros(len(rows), dtype=np.int64)
    if method == "ward":
        labels = AgglomerativeClustering(n_clusters=count, linkage="ward").fit_predict(rows)
    else:
        labels = KMeans(n_clusters=count, n_init=10, random_state=seed).fit_predict(rows)
    return _in_order_of_appearance(labels)


def cluster_centres(features: torch.Tensor, labels: torch.Tensor, num_clusters: int) -> torch.Tensor:
    """Directions ``(num_clusters, D)`` of clusters, the mean of their unit features: prototypes by cosine similarity.

    A cluster without regions points away from all of them.

    Example:
        >>> cluster_centres(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]), num_clusters=2)
        tensor([[1., 0.],
                [0., 1.]])
    """
    rows = unit_rows(features)
    members = F.one_hot(labels.long(), num_clusters).to(rows.dtype)
    sums = members.T @ rows
    sums[members.sum(dim=0) == 0] = -rows.sum(dim=0)
    return unit_rows(sums)


def _as_finite_rows(features: npt.NDArray[np.floating] | torch.Tensor) -> npt.NDArray[np.float64]:
    """Check features and turn them into double precision."""
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu().double().numpy()
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2:
        msg = f"`features` must have shape (R, D), got {rows.shape}."
        raise ValueError(msg)
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        msg = (
            f"`features` must be finite, got NaN or infinity in rows {broken[:5].tolist()}; check the encoder's input."
        )
        raise ValueError(msg)
    return rows


def _feasible_count(rows: npt.NDArray[np.float64], num_clusters: int) -> int:
    """No more clusters than distinct rows; copies of a region differ by rounding only."""
    distinct = len(np.unique(rows.round(6), axis=0))
    if distinct < num_clusters:
        logger.warning("Only %d distinct regions for %d clusters: making %d.", distinct, num_clusters, distinct)
    return min(num_clusters, distinct)


def _in_order_of_appearance(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Renumber labels so that equal partitions have equal labels."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
