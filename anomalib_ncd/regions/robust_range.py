# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A score range that single images can't spoil: where the background of a set of maps lies, and what stands out.

The range is ``(low, high)`` with ``low`` the background and the middle of the range the *floor*: what stays below it is
as normal as the rest of the set. So a score of 0.5 is the border, as it is in anomalib's normalised scores. Not in the
paper, which takes the lowest and the highest peak, see :func:`~anomalib_ncd.regions.mebin.fit_score_range`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anomalib_ncd.regions.mebin import check_map

PARTS_PER_SIDE = 4
_HOT_FACTOR = 5.0
_PEAK_QUANTILE = 0.9
_QUIET_QUANTILE = 0.25
_LEAST_SKEW = 0.4
_LEAST_ABOVE = 0.5


class MapFacts(NamedTuple):
    """What the range needs to know of a map."""

    lowest: float  # its lowest value
    median: float  # its median
    # Highest values of the 4 × 4 parts it is divided into, (16,) float64; fewer for maps with fewer than 4 pixels a
    # side
    part_peaks: np.ndarray

    @property
    def peak(self) -> float:
        """Highest value of the map."""
        return float(self.part_peaks.max())


class RobustRange(NamedTuple):
    """A score range, and what was seen when it was fitted."""

    low: float  # background, what the highest value of a quiet part of a map is
    high: float  # upper end; the floor lies in the middle between both
    hot: tuple[int, ...]  # indices of maps that were left out, as their peaks lie far above all others, ascending
    # Whether most of a typical map is nearly as high as its peak, as in maps where low means abnormal
    is_inverted: bool

    @property
    def score_range(self) -> tuple[float, float]:
        """Lower and upper end."""
        return self.low, self.high


def map_facts(anomaly_map: np.ndarray) -> MapFacts:
    """Gather what the range needs to know of a map ``(H, W)``; so maps can be read one at a time."""
    array = check_map(anomaly_map)
    rows, columns = (np.unique(np.arange(PARTS_PER_SIDE) * side // PARTS_PER_SIDE) for side in array.shape)
    parts = np.maximum.reduceat(np.maximum.reduceat(array, rows, axis=0), columns, axis=1)
    return MapFacts(float(array.min()), float(np.median(array)), parts.ravel().astype(np.float64))


def fit_robust_range(facts: Sequence[MapFacts], normal_facts: Sequence[MapFacts] = ()) -> RobustRange:
    """Find the score range of a set of maps.

    Each map is divided into 4 × 4 parts. The background is the lower quartile of their peaks; the floor divides them in
    two classes, background and abnormal, by Otsu's method. What a quarter of all parts reach doesn't stand out either,
    so the floor is at least their upper quartile, as far as nine of ten maps have peaks above that; not where half of
    the maps have not, as they saturate. Where maps of normal images are given, it lies between the median and the
    maximum of their peaks: an image whose peak is above all of theirs stands out, half of them don't.

    Maps are left out, from the highest peak down, as long as the highest peak lies more than five times as far above
    the others' lowest value as the next peak. So a map with such a peak changes nothing for any other, exactly; any
    other map moves the floor by no more than its share of the set, however high it is, as peaks are cut off at the 90 %
    quantile of all peaks. Returns the range. Its ends are equal where all maps are constant at one value.
    ``ValueError`` if there is no map. There is one :func:`map_facts` of each map; ``normal_facts`` are normal images'.
    """
    if not facts:
        msg = "`facts` must hold those of at least one anomaly map, got none; fit on the maps of the images to sort."
        raise ValueError(msg)
    kept, hot = _without_hot(facts)
    normal, _ = _without_hot(normal_facts)
    pooled = [*kept, *normal]
    peaks = np.array([entry.peak for entry in pooled])
    parts = np.concatenate([entry.part_peaks for entry in pooled])
    low = float(np.quantile(parts, _QUIET_QUANTILE))
    floor = otsu_threshold(np.minimum(parts, np.quantile(peaks, _PEAK_QUANTILE)))
    usual = float(min(np.quantile(parts, 1 - _QUIET_QUANTILE), np.quantile(peaks, 1 - _PEAK_QUANTILE)))
    if (peaks > usual).mean() >= _LEAST_ABOVE:  # not where maps saturate, and most peaks are the highest value
        floor = max(floor, usual)
    if normal:
        normal_peaks = [entry.peak for entry in normal]
        floor = min(max(floor, float(np.median(normal_peaks))), max(normal_peaks))
    low = min(low, floor)
    spans = [(entry.peak - entry.median, entry.peak - entry.lowest) for entry in pooled]
    skews = [above / span for above, span in spans if span > 0]
    is_inverted = bool(skews) and float(np.median(skews)) < _LEAST_SKEW
    return RobustRange(low, 2 * floor - low, hot, is_inverted)


def otsu_threshold(values: np.ndarray) -> float:
    """Divide values ``(N,)`` in two classes so that the variance between them is highest (Otsu, 1979).

    The threshold is the middle between the highest value of the lower class and the lowest of the upper one; the value
    itself where all are equal.
    """
    values = np.sort(np.asarray(values, dtype=np.float64))
    ends = np.flatnonzero(np.diff(values) > 0)
    if not ends.size:
        return float(values[0])
    sums = values.cumsum()
    num_below = ends + 1
    num_above = len(values) - num_below
    gaps = (sums[-1] - sums[ends]) / num_above - sums[ends] / num_below
    end = ends[(num_below * num_above * gaps**2).argmax()]
    return float((values[end] + values[end + 1]) / 2)


def hot_maps(peaks: Sequence[float], lowest: Sequence[float]) -> tuple[int, ...]:
    """Find maps whose peaks lie more than five times as far above the others' lowest value as all others, by index."""
    order = np.argsort(peaks, kind="stable").tolist()
    # base[k]: lowest value of the k + 1 maps with the lowest peaks
    base = np.minimum.accumulate([lowest[index] for index in order]).tolist()
    count = len(order)
    while count > 1:
        highest, following = (peaks[order[count - k]] - base[count - 2] for k in (1, 2))
        if highest <= _HOT_FACTOR * following or following == 0:
            break
        count -= 1
    return tuple(sorted(order[count:]))


def _without_hot(facts: Sequence[MapFacts]) -> tuple[list[MapFacts], tuple[int, ...]]:
    """Leave out maps whose peaks lie far above all others; also return their indices."""
    hot = hot_maps([entry.peak for entry in facts], [entry.lowest for entry in facts])
    return [entry for index, entry in enumerate(facts) if index not in hot], hot
