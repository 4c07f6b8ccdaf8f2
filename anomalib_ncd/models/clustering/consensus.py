# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Clusters that many clusterings of samples agree on.

One hierarchical clustering of a few hundred regions hangs on single regions. Here, each of many is of another half of
them and of another number of clusters, and what counts for two regions is how often they were put together: "Combining
Multiple Clusterings Using Evidence Accumulation" (Fred and Jain, TPAMI 2005), "Consensus Clustering" (Monti et al.,
Machine Learning 2003).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import AgglomerativeClustering

NUM_CLUSTERINGS = 100
SHARE = 0.5
MAX_EXTRA_CLUSTERS = 8
"""A clustering has up to so many clusters more than are asked for."""


def consensus_clusters(
    rows: npt.NDArray[np.floating],
    num_clusters: int,
    seed: int = 0,
    num_clusterings: int = NUM_CLUSTERINGS,
) -> npt.NDArray[np.int64]:
    """Cluster rows by how often Ward's clusters of random halves hold them together.

    Average linkage of the share of clusterings that hold two rows apart, among those that have both. Takes time and
    memory that grow with the square of the rows.

    Args:
        rows: ``(R, D)`` float, finite; R at least `num_clusters`.
        num_clusters: Number of clusters, at least 1.
        seed: Seed of the halves and of their numbers of clusters.
        num_clusterings: Number of clusterings.

    Returns:
        Labels ``(R,)`` from 0 to `num_clusters` - 1, each of which there is.

    Example:
        >>> rows = np.concatenate([np.zeros((5, 2)), np.ones((3, 2))]) + np.arange(8)[:, None] / 100
        >>> labels = consensus_clusters(rows, num_clusters=2)
        >>> (labels == labels[0]).tolist()
        [True, True, True, True, True, False, False, False]
    """
    if len(rows) <= num_clusters:
        return np.arange(len(rows), dtype=np.int64)
    rng = np.random.default_rng(seed)
    distances = squareform(pdist(rows))
    together, times = np.zeros_like(distances), np.zeros_like(distances)
    copies = np.unique(rows.round(6), axis=0, return_inverse=True)[1].ravel()
    size = max(num_clusters + 1, int(SHARE * len(rows)))
    for _ in range(num_clusterings):
        chosen = rng.choice(len(rows), size, replace=False)
        count = min(num_clusters + rng.integers(MAX_EXTRA_CLUSTERS + 1), size - 1, len(np.unique(copies[chosen])))
        pairs = np.ix_(chosen, chosen)
        labels = cut_tree(linkage(squareform(distances[pairs], checks=False), "ward"), count)[:, 0]
        together[pairs] += labels[:, None] == labels[None]
        times[pairs] += 1
    apart = 1 - together / times.clip(min=1)
    np.fill_diagonal(apart, 0)
    grouping = AgglomerativeClustering(n_clusters=num_clusters, metric="precomputed", linkage="average")
    return grouping.fit_predict(apart).astype(np.int64)
