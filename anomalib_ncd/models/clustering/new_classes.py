# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""New classes among regions unlike all of a run, and prototypes for them that follow the old ones."""

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor
from torch.nn import functional as F

from anomalib_ncd.models.clustering.clustering import cluster_features, unit_rows
from anomalib_ncd.regions.classes.prediction import LOGIT_TEMPERATURE

LEFT_UNKNOWN = -1
FITTING_STEPS = 200


def group_unknown(
    unknown: Tensor, known: Tensor, known_classes: Tensor, num_new_classes: int | None = None, min_regions: int = 3
) -> npt.NDArray[np.int64]:
    """Sort unknown regions into new classes.

    Where the number is not given, classes are as coarse as the run's own: groups grow together, the nearest first,
    until the mean distance between two groups exceeds :func:`class_width` of the run. Small groups stay unknown.
    ``ValueError`` for numbers below 1. Returns ``(U,)`` int64, from 0 on in the order of first appearance; -1 for those
    that stay unknown. ``unknown`` ``(U, E)`` and ``known`` ``(N, E)`` are float of norm 1, U of 0 or more,
    ``known_classes`` ``(N,)`` long. Of a given number of new classes each group is one; else groups of fewer than
    ``min_regions`` regions are none.
    """
    check_numbers(num_new_classes, min_regions)
    if not len(unknown):
        return np.zeros(0, dtype=np.int64)
    if num_new_classes is not None:
        return cluster_features(unknown, num_new_classes)
    if len(unknown) == 1:
        return np.full(1, 0 if min_regions == 1 else LEFT_UNKNOWN, dtype=np.int64)
    merger = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=class_width(known, known_classes)
    )
    labels = merger.fit_predict(unknown.cpu().double().numpy())
    return _large_groups(labels, min_regions)


def check_numbers(num_new_classes: int | None, min_regions: int) -> None:
    """Raise ``ValueError`` for numbers below 1; they are those of :func:`group_unknown`."""
    for name, value in (("num_new_classes", num_new_classes), ("min_regions", min_regions)):
        if value is not None and value < 1:
            msg = f"`{name}` must be 1 or more, got {value}; leave `num_new_classes` out to have it estimated."
            raise ValueError(msg)


def class_width(features: Tensor, classes: Tensor) -> float:
    """Half way from the mean cosine distance within a class to that between two; with one class, twice that in it."""
    rows, members = features.cpu().double(), F.one_hot(classes.cpu().long()).double()
    members = members[:, members.sum(dim=0) > 0]
    sums, sizes = members.T @ rows, members.sum(dim=0)
    between = 1 - (sums / sizes[:, None]) @ (sums / sizes[:, None]).T
    # The mean over pairs of two different regions; a region's distance to itself says nothing.
    within = (1 - (sums.square().sum(dim=1) - sizes) / (sizes * (sizes - 1)).clamp(min=1))[sizes > 1]
    inner = float(within.mean()) if len(within) else 0.0
    if len(sizes) == 1:
        return max(2 * inner, torch.finfo(torch.float32).eps)
    outer = float(between[~torch.eye(len(sizes), dtype=torch.bool)].mean())
    return max((inner + outer) / 2, torch.finfo(torch.float32).eps)


def fit_new_prototypes(weight: Tensor, features: Tensor, slots: Tensor, num_new: int) -> Tensor:
    """Prototypes ``(H, num_new, D)`` for new classes that leave the old ones ``(H, C, D)`` where they are.

    They start as the directions of their regions and move by cross-entropy, all old prototypes fixed. What training has
    learnt points elsewhere than the means of classes do, so that means alone would draw old regions to them. `slots`
    ``(N,)`` are the classes of regions, old and new; each new class has one.
    """
    rows, old = unit_rows(features.detach().float()), unit_rows(weight.detach().float())
    members = F.one_hot(slots, old.shape[1] + num_new)[:, old.shape[1] :].to(rows.dtype)
    new = unit_rows(members.T @ rows).repeat(len(old), 1, 1).requires_grad_()
    old_logits = torch.einsum("nd,hcd->hnc", rows, old)
    # Classes count alike, however many regions they have.
    counts = slots.bincount(minlength=old.shape[1] + num_new).clamp(min=1)
    weights = (1 / counts.to(rows.dtype))[slots]
    optimizer = torch.optim.Adam([new], lr=0.01)
    with torch.enable_grad():
        for _ in range(FITTING_STEPS):
            logits = torch.cat([old_logits, torch.einsum("nd,hcd->hnc", rows, unit_rows(new))], dim=2)
            losses = F.cross_entropy(logits.flatten(0, 1) / LOGIT_TEMPERATURE, slots.repeat(len(old)), reduction="none")
            optimizer.zero_grad()
            (losses * weights.repeat(len(old))).mean().backward()
            optimizer.step()
    return unit_rows(new.detach())


def _large_groups(labels: npt.NDArray[np.integer], min_regions: int) -> npt.NDArray[np.int64]:
    """Renumber groups in the order of first appearance; those that are too small become -1."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    large = [group for group in np.argsort(first).tolist() if counts[group] >= min_regions]
    number = np.full(len(counts), LEFT_UNKNOWN, dtype=np.int64)
    number[large] = np.arange(len(large))
    return number[inverse]
