# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Directions of features, and how near the nearest others are.

"Out-of-Distribution Detection with Deep Nearest Neighbors" (Sun et al., ICML 2022, arXiv 2204.06507): the distance to
the nearest training features, scaled to norm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_SIMILARITY = -1.0


def unit_rows(vectors: Tensor) -> Tensor:
    """Scale vectors (..., D) to norm 1; zero vectors stay zero.

    In at least single precision inside, as half precision loses the guard against zero vectors.
    """
    precise = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return F.normalize(precise, dim=-1).to(vectors.dtype)


def neighbour_similarity(features: Tensor, references: Tensor) -> Tensor:
    """Cosine of features (R, D) to the nearest of the references (N, D), both of norm 1; -1 without references.

    Example:
        >>> neighbour_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]]))
        tensor([0.6000])
    """
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
