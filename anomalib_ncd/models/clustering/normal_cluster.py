# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Which cluster of regions, if any, gathers the false alarms of the detector."""

import numpy as np
from scipy.stats import rankdata

MIN_SEPARATION = 0.9
MAX_SCORE = 0.3
OUTERMOST = 0.05


def find_normal_cluster(
    labels: np.ndarray, scores: np.ndarray, areas: np.ndarray, min_separation: float = MIN_SEPARATION
) -> int | None:
    """Find the cluster that the detector itself hardly calls anomalous; no label is needed.

    A kind of defect that the detector hardly sees is taken for normal, too. Defaults: see docs/guides/trust.md.
    ``ValueError`` if the shapes differ. Returns the cluster; ``None`` where none is clearly normal. Regions have
    clusters ``(R,)`` int, anomaly scores ``(R,)`` float in [0, 1] and areas ``(R,)`` of mask pixels, 0 where the
    detector's mask was empty; ``min_separation`` is the least probability that a region of the cluster scores lower
    than one of another cluster.
    """
    labels, scores, areas = np.asarray(labels), np.asarray(scores, dtype=np.float64), np.asarray(areas)
    if not labels.shape == scores.shape == areas.shape or labels.ndim != 1:
        shapes = f"{labels.shape}, {scores.shape}, {areas.shape}"
        msg = f"`labels`, `scores` and `areas` must have one shape (R,), got {shapes}."
        raise ValueError(msg)
    # An empty mask is the surest sign of all.
    ranks = rankdata(np.where(areas > 0, scores, -1.0))
    best, best_separation = None, min_separation
    for cluster in np.unique(labels).tolist():
        members = labels == cluster
        count, others = int(members.sum()), int((~members).sum())
        if not others or np.median(np.where(areas > 0, scores, 0.0)[members]) > MAX_SCORE:
            continue
        # Mann and Whitney's statistic: the share of pairs in which the member scores lower.
        separation = 1 - (ranks[members].sum() - count * (count + 1) / 2) / (count * others)
        if separation >= best_separation:
            best, best_separation = cluster, separation
    return best


def find_cluster_of_normal(rows: np.ndarray, labels: np.ndarray, num_regions: int) -> int | None:
    """Find the cluster that known-normal regions are in, where they were clustered with the others.

    It is the one of most of them, if they lie inside of it: their median cosine to the mean of the others in it is no
    less than that of its outermost twentieth. Otherwise normal has no cluster of its own, as with too few clusters.
    Returns the cluster, which may hold no region; ``None`` where none is normal, or no normal region is known.
    ``ValueError`` if the shapes differ. Rows ``(R + N, D)`` float of norm 1 are features of ``num_regions`` R regions,
    then of N known-normal ones; labels ``(R + N,)`` int are their clusters.
    """
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or not 0 <= num_regions <= len(rows):
        msg = f"`rows` (R + N, D), labels (R + N,) and R don't fit: {rows.shape}, {labels.shape} and {num_regions}."
        raise ValueError(msg)
    if num_regions == len(rows):
        return None
    cluster = int(np.bincount(labels[num_regions:]).argmax())
    members = rows[:num_regions][labels[:num_regions] == cluster]
    if not len(members):
        return cluster
    centre = members.mean(axis=0)
    is_inside = np.median(rows[num_regions:] @ centre) >= np.quantile(members @ centre, OUTERMOST)
    return cluster if is_inside else None


def with_slot_first(labels: np.ndarray, slot: int) -> np.ndarray:
    """Renumber labels so that one of them becomes 0 and those before it move up by one."""
    labels = np.asarray(labels)
    return np.where(labels == slot, 0, labels + (labels < slot))
