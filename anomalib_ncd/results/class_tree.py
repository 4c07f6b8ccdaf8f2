# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Fewer or more classes than a run has: which of them merge first, and which fall apart first."""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from anomalib_ncd.results.label_order import unit_rows

FEWEST, MOST = 2, 20
MAX_CLUSTERED = 1000


@dataclass(frozen=True)
class ClassTree:
    """Cuts of a tree of regions that goes through the classes of a run."""

    count: int  # number of classes that have regions
    # Pairs of classes; the second becomes part of the first. The first pairs merge first.
    merges: list[tuple[int, int]]
    # Class that falls apart, and the regions that leave it, for one class more each. The class that they make has the
    # number that follows the highest.
    splits: list[tuple[int, np.ndarray]]


def class_tree(features: np.ndarray, classes: np.ndarray, normal: int | None = None, most: int = MOST) -> ClassTree:
    """Build the tree with Ward's criterion: the least growth, or the largest loss, of the squared distances to means.

    Features ``(R, D)`` float are of any norm, classes ``(R,)`` int count from 0. The class ``normal`` neither merges
    nor falls apart; there are 2 classes at least and ``most`` at most.
    """
    rows = unit_rows(features)
    present = np.unique(classes).tolist()
    return ClassTree(
        len(present),
        _merges(rows, {one: np.flatnonzero(classes == one) for one in present if one != normal}, len(present)),
        _splits(rows, classes, normal, most - len(present)),
    )


def _merges(rows: np.ndarray, members: dict[int, np.ndarray], count: int) -> list[tuple[int, int]]:
    """Pairs in the order in which they merge."""
    sizes = {one: len(own) for one, own in members.items()}
    means = {one: rows[own].mean(axis=0) for one, own in members.items()}
    merges = list[tuple[int, int]]()
    while count - len(merges) > FEWEST and len(sizes) > 1:
        pairs = [(one, other) for one in sizes for other in sizes if one < other]
        costs = [
            sizes[a] * sizes[b] / (sizes[a] + sizes[b]) * float(((means[a] - means[b]) ** 2).sum()) for a, b in pairs
        ]
        first, second = pairs[int(np.argmin(costs))]
        total = sizes[first] + sizes[second]
        means[first] = (sizes[first] * means[first] + sizes.pop(second) * means.pop(second)) / total
        sizes[first] = total
        merges.append((first, second))
    return merges


def _splits(rows: np.ndarray, classes: np.ndarray, normal: int | None, number: int) -> list[tuple[int, np.ndarray]]:
    """Classes in the order in which they fall apart, with the regions that leave them."""
    now, splits = classes.copy(), list[tuple[int, np.ndarray]]()
    halves = {one: _halve(rows, np.flatnonzero(now == one)) for one in np.unique(now).tolist() if one != normal}
    while len(splits) < number:
        of = max(halves, key=lambda one: halves[one][0], default=None)
        if of is None or halves[of][0] <= 0:
            break
        leaving, new = halves[of][1], int(now.max()) + 1
        now[leaving] = new
        splits.append((of, leaving))
        halves |= {one: _halve(rows, np.flatnonzero(now == one)) for one in (of, new)}
    return splits


def _halve(rows: np.ndarray, members: np.ndarray) -> tuple[float, np.ndarray]:
    """What parting regions in two brings, and the smaller part."""
    own = rows[members]
    if len(members) < 2 or np.ptp(own, axis=0).max() < 1e-6:
        return 0.0, members[:0]
    looked_at = np.linspace(0, len(own) - 1, min(len(own), MAX_CLUSTERED)).astype(int)
    labels = AgglomerativeClustering(2, linkage="ward").fit_predict(own[looked_at])
    means = np.stack([own[looked_at][labels == label].mean(axis=0) for label in (0, 1)])
    is_second = labels == 1
    if len(looked_at) < len(own):
        is_second = ((own - means[1]) ** 2).sum(axis=1) < ((own - means[0]) ** 2).sum(axis=1)
    sizes = is_second.sum(), (~is_second).sum()
    gain = sizes[0] * sizes[1] / len(own) * float(((means[0] - means[1]) ** 2).sum())
    return gain, members[is_second if sizes[0] <= sizes[1] else ~is_second]
