# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A map of regions in two dimensions."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from anomalib_ncd.results.label_order import unit_rows

MAX_TSNE_REGIONS = 2000
MIN_TSNE_REGIONS = 8
PCA_DIMENSIONS = 50


def map_regions(features: np.ndarray, seed: int = 0, max_tsne_regions: int = MAX_TSNE_REGIONS) -> np.ndarray:
    """Lay regions out so that alike ones lie together: t-SNE, or the first two principal components of many regions.

    Features ``(R, D)`` finite, scaled to norm 1, become ``(R, 2)`` float32, centred, the largest coordinate ±1; zeros
    where all regions are alike.
    """
    features = np.asarray(features)
    if features.ndim != 2 or not np.isfinite(features).all():
        msg = f"`features` must be a finite array of shape (R, D), got {features.shape}."
        raise ValueError(msg)
    rows = unit_rows(features)
    if len(rows) < 2 or np.ptp(rows, axis=0).max(initial=0) < 1e-9:
        return np.zeros((len(rows), 2), np.float32)
    use_tsne = MIN_TSNE_REGIONS <= len(rows) <= max_tsne_regions
    dimensions = min(PCA_DIMENSIONS if use_tsne else 2, *rows.shape)
    reduced = PCA(dimensions, random_state=seed).fit_transform(rows)
    if use_tsne:
        perplexity = min(30.0, (len(rows) - 1) / 3)
        start = _two_columns(reduced) / max(reduced[:, 0].std(), 1e-12) * 1e-4
        reduced = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)
        reduced = PCA(2).fit_transform(reduced)  # the longest way lies flat, as screens do
    # The middle of the bounding box becomes 0, and both axes are scaled alike to ±1.
    positions = _two_columns(reduced)
    low, high = positions.min(axis=0), positions.max(axis=0)
    return ((positions - (low + high) / 2) / max((high - low).max() / 2, 1e-12)).astype(np.float32)


def _two_columns(array: np.ndarray) -> np.ndarray:
    """The first two columns, of which the second may be missing."""
    return np.pad(array, ((0, 0), (0, max(0, 2 - array.shape[1]))))[:, :2]
