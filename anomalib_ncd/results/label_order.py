# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Which regions to label first."""

import numpy as np

MAX_COMPARED = 3000


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Scale rows ``(R, D)`` to norm 1, float64; rows of zeros stay zeros."""
    rows = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def doubt_of(probabilities: np.ndarray) -> np.ndarray:
    """How close the second of probabilities ``(R, K)`` is behind the first, from 0 (sure, or one class) to 1."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return 1 - (first - second)


def label_order(
    features: np.ndarray, doubt: np.ndarray, groups: np.ndarray, count: int, labelled: np.ndarray
) -> list[int]:
    """Choose regions that stand for many doubtful ones which no chosen or labelled region is like.

    Each is the one that adds most to the similarity of all regions to the nearest one chosen, weighted by their doubt
    (facility location; Nemhauser et al., "An Analysis of Approximations for Maximizing Submodular Set Functions",
    1978). Returns indices of regions, the one to label first first. Features ``(R, D)`` float are of any norm; of more
    than 3,000 regions, so many are looked at, the most doubtful. ``doubt`` ``(R,)`` float is 0 or more, of each of the
    ``groups`` ``(R,)`` integer, the regions of one image, one is chosen, and ``labelled`` ``(R,)`` bool are regions
    whose class is known. At most ``count`` are chosen.
    """
    if not len(features):
        return []
    looked_at = np.sort(np.argsort(-doubt - 2 * labelled, kind="stable")[:MAX_COMPARED])
    rows = unit_rows(features[looked_at])
    rows = unit_rows(rows - rows.mean(axis=0)).astype(np.float32)
    similarities, weights, own = rows @ rows.T, doubt[looked_at] + 1e-6, groups[looked_at]
    known = labelled[looked_at]
    nearest = similarities[:, known].max(axis=1, initial=-1)
    is_open = ~np.isin(own, own[known])
    # What a region adds only shrinks as others are chosen, so those that added less before needn't be looked at again.
    gains = weights @ np.maximum(similarities - nearest[:, None], 0)
    chosen: list[int] = []
    while len(chosen) < count and is_open.any():
        gains[~is_open], best = -1, -1
        while (highest := int(gains.argmax())) != best:
            best = highest
            gains[best] = weights @ np.maximum(similarities[best] - nearest, 0)
        chosen.append(int(looked_at[best]))
        nearest = np.maximum(nearest, similarities[best])
        is_open &= own != own[best]
    return chosen
