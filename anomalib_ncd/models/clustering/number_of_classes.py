# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How many classes there are among the regions, from their frozen features alone.

No single criterion can be trusted: the silhouette sees round clusters of like size, density and neighbourhoods see
clusters of any shape, but at a scale that has to be chosen. So each of several criteria votes, on several random
samples of the regions, and the middle of all votes is the estimate. docs/research/number_of_classes.md has more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from networkx import from_scipy_sparse_array
from networkx.algorithms.community import louvain_communities
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import HDBSCAN
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize

MAX_CLASSES = 20
MAX_REGIONS = 1000
MIN_DISTINCT_REGIONS = 8
NUM_SAMPLES, SAMPLE_SHARE = 5, 0.95
SMALLEST_CLUSTER = 0.3  # regions that a cluster must hold for the density criterion, as a share of the root of all
SMALLEST_COMMUNITY = 1 / 60  # share of the regions that a community must hold to be one
NEIGHBOURS = (6, 10)
METHOD = "the share of votes (silhouette, density and two neighbour graphs, on five samples of the regions)"


@dataclass(frozen=True)
class NumClassesEstimate:
    """An estimated number of classes, *normal* included, and what it rests on."""

    count: int  # the estimate, 1 or more
    low: int  # smallest number that is plausible; `high` the largest
    high: int
    # Each candidate with its score, larger is better; empty where there was nothing to choose from
    curve: list[tuple[int, float]]
    method: str  # what the scores are, or why there are none, in a few words

    def plain(self) -> dict[str, Any]:
        """The estimate as plain data, for checkpoints and JSON."""
        curve = [[count, score] for count, score in self.curve]
        return {"count": self.count, "low": self.low, "high": self.high, "curve": curve, "method": self.method}

    def with_normal(self) -> NumClassesEstimate:
        """The estimate with *normal*, of which there was no region, as one class more."""
        curve = [(count + 1, score) for count, score in self.curve]
        return replace(self, count=self.count + 1, low=self.low + 1, high=self.high + 1, curve=curve)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> NumClassesEstimate:
        """The estimate that :meth:`plain` was made from."""
        return cls(**plain | {"curve": [(int(count), float(score)) for count, score in plain["curve"]]})


def estimate_num_classes(
    features: npt.NDArray[np.floating] | torch.Tensor, max_classes: int = MAX_CLASSES, seed: int = 0
) -> NumClassesEstimate:
    """Estimate the number of classes among regions.

    On five samples of 95 % of the regions (of 1,000 random ones at most), standardised and scaled to norm 1, four
    criteria vote: Ward's clusters with the highest mean silhouette (Rousseeuw, 1987); HDBSCAN (Campello et al., 2013)
    with clusters of 0.3 times the root of the number of regions, 3 at least; and communities of a sixtieth of the
    regions in the graphs of 6 and 10 nearest neighbours (Louvain, Blondel et al., 2008). The estimate is the median of
    the votes, the range lies between their 5 % and 95 % quantiles, and the curve is the share of votes.

    Fewer than eight distinct regions say nothing: the estimate is then 2 (1 for one distinct region), anything up to
    the number of distinct regions is plausible, and the curve is empty. ``ValueError`` if the features are not a finite
    (R, D) array or `max_classes` is below 2. Frozen features (R, D) are finite, R may be 0. At most ``max_classes`` are
    considered, and never more than a quarter of the regions; ``seed`` is that of the samples.
    """
    rows = _checked_rows(features, max_classes)
    rng = np.random.default_rng(seed)
    if len(rows) > MAX_REGIONS:
        rows = rows[np.sort(rng.choice(len(rows), MAX_REGIONS, replace=False))]
    num_distinct = len(np.unique(rows.round(6), axis=0))
    if num_distinct < MIN_DISTINCT_REGIONS:
        return _too_few(num_distinct)
    distances = squareform(pdist(normalize(StandardScaler().fit_transform(rows))))
    most = max(2, min(max_classes, num_distinct // 4))
    votes = []
    for _ in range(NUM_SAMPLES):
        chosen = np.sort(rng.choice(len(rows), max(4, round(SAMPLE_SHARE * len(rows))), replace=False))
        votes += _votes(distances[np.ix_(chosen, chosen)], most)
    low, count, high = np.quantile(votes, [0.05, 0.5, 0.95], method="inverted_cdf").tolist()  # each is a vote
    shares = np.bincount(votes, minlength=most + 1) / len(votes)
    curve = [(number, float(shares[number])) for number in range(2, most + 1)]
    return NumClassesEstimate(count, low, high, curve, METHOD)


def _checked_rows(features: npt.NDArray[np.floating] | torch.Tensor, max_classes: int) -> npt.NDArray[np.float64]:
    """Check the arguments and turn the features into double precision."""
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu().double().numpy()
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        msg = f"`features` must be a finite array of shape (R, D), got shape {rows.shape}; check the encoder's input."
        raise ValueError(msg)
    if max_classes < 2:
        msg = f"`max_classes` must be at least 2, got {max_classes}."
        raise ValueError(msg)
    return rows


def _too_few(num_distinct: int) -> NumClassesEstimate:
    """What is said where there is nothing to go by."""
    noun = "region" if num_distinct == 1 else "regions"
    reason = f"{num_distinct} distinct {noun} can't tell; at least {MIN_DISTINCT_REGIONS} are needed"
    return NumClassesEstimate(min(2, max(1, num_distinct)), 1, max(1, num_distinct), [], reason)


def _votes(distances: npt.NDArray[np.float64], most: int) -> list[int]:
    """Numbers of classes, from 2 to `most`, that the criteria find in a sample with such distances (n, n)."""
    tree = linkage(squareform(distances, checks=False), "ward")
    scores = {}
    for number in range(2, most + 1):
        labels = fcluster(tree, number, "maxclust")
        if 2 <= len(np.unique(labels)) < len(labels):  # copies of one region can't be told apart
            scores[number] = silhouette_score(distances, labels, metric="precomputed")
    votes = [max(scores, key=lambda number: scores[number])] if scores else []
    size = max(3, round(SMALLEST_CLUSTER * len(distances) ** 0.5))
    votes.append(int(HDBSCAN(min_cluster_size=size, metric="precomputed", copy=True).fit_predict(distances).max()) + 1)
    votes += [_num_communities(distances, neighbours) for neighbours in NEIGHBOURS]
    return [int(np.clip(vote, 2, most)) for vote in votes]


def _num_communities(distances: npt.NDArray[np.float64], num_neighbours: int) -> int:
    """Communities of the graph of nearest neighbours, in which mutual neighbours count twice."""
    graph = NearestNeighbors(n_neighbors=min(num_neighbours, len(distances) - 1), metric="precomputed")
    edges = graph.fit(distances).kneighbors_graph()
    communities = louvain_communities(from_scipy_sparse_array(edges + edges.T), seed=0)
    least = max(3, SMALLEST_COMMUNITY * len(distances))
    return sum(len(members) >= least for members in communities)
