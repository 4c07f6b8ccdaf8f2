# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A start for the prototypes of the novel classes: the centres of clusters of the frozen features.

The paper (AnomalyNCD, Huang et al., CVPR 2025) starts at random. With few regions, or a backbone that tells defects
apart less well than the paper's, it ends up below plain clusters of the same features. Prototypes from clusters: DTC
(Han et al., ICCV 2019, arXiv 1908.09884). The clusters' sizes are a prior of the classes for those who ask for it:
"Bootstrap Your Own Prior" (Yang et al., CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.metrics.matching import match_classes
from anomalib_ncd.models.clustering.clustering import MAX_CLUSTERED, cluster_centres, cluster_features
from anomalib_ncd.models.clustering.normal_cluster import with_slot_first
from anomalib_ncd.models.known_regions import features_of

if TYPE_CHECKING:
    from anomalib_ncd.models.lightning_model import AnomalyNcd


class ClusterStart(NamedTuple):
    """What training starts from.

    Attributes:
        prototypes: ``(num_heads, num_classes, D)`` of norm 1.
        class_prior: ``(num_classes,)``, the share of the regions in each class; positive, sums to 1.
    """

    prototypes: torch.Tensor
    class_prior: torch.Tensor


def cluster_start(
    features: torch.Tensor,
    scores: torch.Tensor,
    num_classes: int,
    num_heads: int,
    seed: int = 0,
    grouped_by: torch.Tensor | None = None,
) -> ClusterStart:
    """Cluster regions, once for each head, and number the clusters alike.

    The first head starts from Ward's clusters, the others from k-means with seeds of their own, so that heads remain
    different opinions. The cluster with the lowest mean score gets slot 0, *normal*. Of more than 2,000 regions, a
    random 2,000 are clustered.

    Args:
        features: ``(R, D)`` float, of any norm; R at least 1.
        scores: ``(R,)`` anomaly scores of the regions.
        num_classes: Number of classes. With fewer distinct regions, the prototypes left over point away from all.
        num_heads: Number of heads.
        seed: Seed of k-means.
        grouped_by: ``(R, E)`` float, other features of the regions by which they are clustered. Defaults to ``None``:
            the features themselves, of which the prototypes are made in any case.

    Returns:
        Prototypes and prior.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> start = cluster_start(features, torch.tensor([0.9, 0.8, 0.1]), num_classes=2, num_heads=1)
        >>> start.prototypes[0, 0], start.class_prior
        (tensor([0., 1.]), tensor([0.4000, 0.6000]))
    """
    grouped_by = features if grouped_by is None else grouped_by
    if len(features) > MAX_CLUSTERED:
        chosen = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:MAX_CLUSTERED]
        features, scores, grouped_by = features[chosen], scores[chosen], grouped_by[chosen]
    first = cluster_features(grouped_by, num_classes, "ward")
    means = [float(scores[torch.as_tensor(first == slot)].mean()) for slot in range(int(first.max()) + 1)]
    first = with_slot_first(first, int(np.argmin(means)))
    labels = [first]
    for head in range(1, num_heads):
        found = cluster_features(grouped_by, num_classes, "kmeans", seed=seed * num_heads + head)
        labels.append(_numbered_like(found, first, num_classes))
    prototypes = [cluster_centres(features, torch.as_tensor(found), num_classes) for found in labels]
    # One more region in each class than there is: no class is impossible.
    counts = torch.bincount(torch.as_tensor(first), minlength=num_classes) + 1.0
    return ClusterStart(torch.stack(prototypes), counts / counts.sum())


def _numbered_like(labels: np.ndarray, example: np.ndarray, num_classes: int) -> np.ndarray:
    """Renumber clusters so that as many regions as possible have the number that they have in the example."""
    matches = match_classes(labels, example)
    free = iter(sorted(set(range(num_classes)) - set(matches.values())))
    slots = {cluster: matches[cluster] if cluster in matches else next(free) for cluster in np.unique(labels).tolist()}
    return np.array([slots[cluster] for cluster in labels.tolist()], dtype=np.int64)


def uniform_prior(num_classes: int) -> torch.Tensor:
    """Equal shares ``(num_classes,)``.

    Example:
        >>> uniform_prior(4)
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    return torch.full((num_classes,), 1 / num_classes)


def start_from_clusters(
    model: AnomalyNcd,
    encoded: Sequence[NcdBatch],
    seed: int = 0,
    grouped_by: torch.Tensor | None = None,
) -> None:
    """Put the centres of clusters into the heads of a model, and their sizes into its loss where it asks for them.

    The prototypes of base classes stay as they are, and so does the length of all prototypes, on which the steps of
    the optimiser depend.

    Args:
        model: Model that is about to be trained.
        encoded: All its images, of :func:`~anomalib_ncd.models.known_regions.encode_images`.
        seed: Seed of the clusters.
        grouped_by: See :func:`cluster_start`.

    Raises:
        ValueError: If the images have no features.
    """
    features, scores = features_of(encoded)
    start = cluster_start(features, scores, model.num_novel_classes, model.num_heads, seed, grouped_by)
    novel = model.model.heads.weight.data[:, model.num_base_classes :]
    novel.copy_(start.prototypes.to(novel) * novel.norm(dim=-1, keepdim=True))
    if model.class_sizes == "clusters" and isinstance(model.loss.class_prior, torch.Tensor):
        model.loss.class_prior.copy_(start.class_prior)
