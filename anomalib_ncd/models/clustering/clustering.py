# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Clusters of mask-guided features, and similarities between them."""

import logging
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.preprocessing import normalize
from torch import Tensor
from torch.nn import functional as F

from anomalib_ncd.metrics.discovery import match_classes
from anomalib_ncd.models.clustering.normal_cluster import with_slot_first

logger = logging.getLogger(__name__)

ClusterMethod = Literal["kmeans", "ward"]

MAX_CLUSTERED = 2000  # of more regions, where that will do: time and memory grow with their square
LEAST_SIMILARITY = -1.0


def unit_rows(vectors: Tensor) -> Tensor:
    """Scale vectors (..., D) to norm 1; zero vectors stay zero.

    In at least single precision inside, as half precision loses the guard against zero vectors.
    """
    precise = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return F.normalize(precise, dim=-1).to(vectors.dtype)


def neighbour_similarity(features: Tensor, references: Tensor) -> Tensor:
    """Cosine of features (R, D) to the nearest of the references (N, D), both of norm 1; -1 without references."""
    _check(features, references)
    if not len(references):
        return features[:, 0] * 0 + LEAST_SIMILARITY
    return (features @ references.T).amax(dim=1)


def left_out_similarity(features: Tensor, groups: Tensor, rows_at_once: int = 1024) -> Tensor:
    """Cosine of each feature ``(N, D)`` of norm 1 to the nearest one of other groups; -1 where there is none.

    Features of one group ``(N,)``, such as the regions of an image, don't see each other.
    """
    _check(features, features)
    if groups.shape != features.shape[:1]:
        msg = f"`groups` must have shape ({len(features)},), one for each feature, got {tuple(groups.shape)}."
        raise ValueError(msg)
    if not len(features):
        return features.new_zeros(0)
    found = []
    for rows, own in zip(features.split(rows_at_once), groups.split(rows_at_once), strict=True):
        similarities = (rows @ features.T).masked_fill(own[:, None] == groups[None], LEAST_SIMILARITY)
        found.append(similarities.amax(dim=1))
    return torch.cat(found)


def _check(features: Tensor, references: Tensor) -> None:
    if features.ndim != 2 or references.ndim != 2 or features.shape[1] != references.shape[1]:
        shapes = f"{tuple(features.shape)} and {tuple(references.shape)}"
        msg = f"`features` and `references` must have shapes (R, D) and (N, D), got {shapes}."
        raise ValueError(msg)


def cluster_features(
    features: npt.NDArray[np.floating] | torch.Tensor,
    num_clusters: int,
    method: ClusterMethod = "ward",
    *,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Group regions by their features, scaled to norm 1.

    With fewer distinct features than ``num_clusters`` there are as many clusters as distinct features, and a warning is
    logged. Returns labels ``(R,)``, numbered in the order in which they first appear; ``ValueError`` for bad arguments.
    Features ``(R, D)`` are finite, R may be 0. The method is ``"ward"`` (hierarchical, without randomness) or
    ``"kmeans"`` (best of 10 starts, which ``seed`` decides).
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
        msg = f"`features` must be finite, got NaN or infinity in rows {broken[:5].tolist()}; check what is encoded."
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


def cluster_prototypes(
    features: torch.Tensor, scores: torch.Tensor, num_classes: int, num_heads: int, seed: int = 0
) -> torch.Tensor:
    """Cluster regions, once for each head, and number the clusters alike: ``(num_heads, num_classes, D)`` of norm 1.

    The first head starts from Ward's clusters, the others from k-means with seeds of their own, so that heads remain
    different opinions. The cluster with the lowest mean score gets slot 0, *normal*. Of more than 2,000 regions, a
    random 2,000 are clustered. With fewer distinct regions than classes, the prototypes left over point away from all.
    """
    if len(features) > MAX_CLUSTERED:
        chosen = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:MAX_CLUSTERED]
        features, scores = features[chosen], scores[chosen]
    first = cluster_features(features, num_classes)
    means = [float(scores[torch.as_tensor(first == slot)].mean()) for slot in range(int(first.max()) + 1)]
    first = with_slot_first(first, int(np.argmin(means)))
    labels = [first]
    for head in range(1, num_heads):
        found = cluster_features(features, num_classes, "kmeans", seed=seed * num_heads + head)
        labels.append(_numbered_like(found, first, num_classes))
    return torch.stack([cluster_centres(features, torch.as_tensor(found), num_classes) for found in labels])


def _numbered_like(labels: np.ndarray, example: np.ndarray, num_classes: int) -> np.ndarray:
    """Renumber clusters so that as many regions as possible have the number that they have in the example."""
    matches = match_classes(labels, example)
    free = iter(sorted(set(range(num_classes)) - set(matches.values())))
    slots = {cluster: matches[cluster] if cluster in matches else next(free) for cluster in np.unique(labels).tolist()}
    return np.array([slots[cluster] for cluster in labels.tolist()], dtype=np.int64)
