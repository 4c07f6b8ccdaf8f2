# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A start for the prototypes of the novel classes: the centres of clusters of the frozen features.

The paper (AnomalyNCD, Huang et al., CVPR 2025) starts at random. With few regions, or a backbone that tells defects
apart less well than the paper's, it ends up below plain clusters of the same features. Prototypes from clusters: DTC
(Han et al., ICCV 2019, arXiv 1908.09884).
"""

from __future__ import annotations

import numpy as np
import torch

from anomalib_ncd.metrics.matching import match_classes
from anomalib_ncd.models.clustering.clustering import MAX_CLUSTERED, cluster_centres, cluster_features
from anomalib_ncd.models.clustering.normal_cluster import with_slot_first


def cluster_prototypes(
    features: torch.Tensor,
    scores: torch.Tensor,
    num_classes: int,
    num_heads: int,
    seed: int = 0,
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
