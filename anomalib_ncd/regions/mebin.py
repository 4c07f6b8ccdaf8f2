# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Main Element Binarization (MEBin) of anomaly maps: "AnomalyNCD" (Huang et al., CVPR 2025), section on MEBin.

A map is thresholded from high to low; where the number of connected components stays equal over the longest stretch
of thresholds, the main elements of the map stand apart from its noise. The end of that stretch is the threshold and
its count the estimated number of anomalies.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

_UNKNOWN = -1
_Box = tuple[int, int, int, int]  # left, top, width, height


def sweep_thresholds(sample_rate: int) -> np.ndarray:
    """List the thresholds of a sweep, 255, 255 - `sample_rate`, … down to above 0, for a whole number from 1 to 255."""
    if sample_rate != int(sample_rate) or not 1 <= sample_rate <= 255:
        msg = f"`sample_rate` must be a whole number from 1 to 255, got {sample_rate}; 4 is the paper's."
        raise ValueError(msg)
    return np.arange(255, 0, -int(sample_rate))


class ThresholdSweep:
    """Counts the components of a map's masks, doing as little as gives the exact counts.

    Masks are nested: each lies inside the mask of any lower threshold. So thresholds are visited from the lowest up,
    inside a shrinking bounding box, and a mask with as many pixels as the one before is that mask. Levels ``(H, W)``
    uint8 are eroded already; the mask at threshold t is ``levels > t``. Thresholds ``(K,)`` are whole numbers from 1 to
    255, descending.
    """

    def __init__(self, levels: np.ndarray, thresholds: np.ndarray) -> None:
        self.thresholds = thresholds
        self._levels = levels
        self._frame: _Box = cv2.boundingRect(levels)  # type: ignore[assignment]
        histogram = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        at_least = np.append(histogram[::-1].cumsum()[::-1], 0)
        self._num_pixels = at_least[thresholds + 1]
        self._counts = np.where(self._num_pixels == 0, 0, _UNKNOWN)
        self._boxes: list[_Box | None] = [None] * len(thresholds)

    def count_all(self) -> np.ndarray:
        """Count at every threshold; ``(K,)`` int64."""
        self._count_where(np.ones(len(self.thresholds), dtype=bool))
        return self._counts

    def count_stable(self, min_interval_len: int) -> np.ndarray:
        """Count where a run of `min_interval_len` equal counts or more is possible; ``(K,)`` int64, elsewhere -1.

        A run of n holds two neighbours of any grid of step n // 2. So the grid is counted first, then whatever lies
        around its equal neighbours. The -1 come in runs shorter than n.
        """
        step = max(1, min_interval_len // 2)
        if step == 1:
            return self.count_all()
        wanted = np.zeros(len(self.thresholds), dtype=bool)
        wanted[::step] = True
        self._count_where(wanted)
        grid = np.flatnonzero(wanted)
        on_grid = self._counts[grid]
        for index in grid[:-1][(on_grid[:-1] == on_grid[1:]) & (on_grid[1:] > 0)]:
            wanted[max(0, index - step) : index + 2 * step] = True
        self._count_where(wanted)
        return self._counts

    def _count_where(self, wanted: np.ndarray) -> None:
        """Fill in the counts that are wanted and not known yet."""
        box, known = self._frame, None
        for index in reversed(range(len(self.thresholds))):
            if self._num_pixels[index] == 0:
                break
            if self._boxes[index] is None:
                if not wanted[index]:
                    continue
                if known is not None and self._num_pixels[index] == self._num_pixels[known]:
                    self._counts[index], self._boxes[index] = self._counts[known], box
                else:
                    self._counts[index], self._boxes[index] = self._count_inside(box, int(self.thresholds[index]))
            box, known = self._boxes[index] or box, index

    def _count_inside(self, box: _Box, threshold: int) -> tuple[int, _Box]:
        """Count the components of one mask inside a box that holds them all, and find their own box."""
        left, top, width, height = box
        mask = cv2.threshold(self._levels[top : top + height, left : left + width], threshold, 1, cv2.THRESH_BINARY)[1]
        x, y, width, height = cv2.boundingRect(mask)
        count = cv2.connectedComponents(mask[y : y + height, x : x + width], connectivity=8)[0] - 1
        return count, (left + x, top + y, width, height)


class BinarizedMap(NamedTuple):
    """A binarised anomaly map."""

    mask: np.ndarray  # main elements, (H, W) bool
    # Threshold in map units, a whole number for integer maps. Where the map has no stable interval it is the upper end
    # of the score range, and the mask is empty.
    threshold: float
    num_components: int  # estimated number of anomalies


def fit_score_range(maps: Iterable[np.ndarray]) -> tuple[float, float]:
    """Find the score range of a set of maps: its lowest and its highest peak.

    Maps are read one at a time. Where all peaks are equal (a single map, for instance) that range has no width; the
    lowest value over all maps then takes the place of the lowest peak. ``ValueError`` for no map, or one not valid.
    """
    arrays = (check_map(anomaly_map, f"maps[{index}]") for index, anomaly_map in enumerate(maps))
    return range_of_peaks([(float(array.max()), float(array.min())) for array in arrays])


def range_of_peaks(extremes: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The range of :func:`fit_score_range` by the highest and the lowest value of each map."""
    if not extremes:
        msg = "`maps` must hold at least one anomaly map, got none; fit on the detector's maps of the images to sort."
        raise ValueError(msg)
    peaks, lowest = zip(*extremes, strict=True)
    low, high = min(peaks), max(peaks)
    return (low, high) if low < high else (min(lowest), high)


def normalize_anomaly_map(anomaly_map: np.ndarray, score_range: tuple[float, float]) -> np.ndarray:
    """Scale a map ``(H, W)`` so that the score range becomes 0 to 255, float64.

    Values below the range are 0; those above it, which only maps outside the fitted set can have, 255. No width: all 0.
    """
    return _scaled(check_map(anomaly_map), *check_range(score_range))


def select_interval(counts: np.ndarray, min_interval_len: int = 4) -> tuple[int, int] | None:
    """Pick the stable interval of a sweep, its longest run of equal, non-zero counts: last index and count.

    Among runs of equal length, the count whose first stable run comes first in the sweep wins; among runs of that
    count, the last one. ``None`` where no run has `min_interval_len`, 4 in the paper.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1:
        msg = f"`counts` must have shape (K,), got {counts.shape}; pass the counts of one map."
        raise ValueError(msg)
    _check_at_least("min_interval_len", min_interval_len, 1)
    if not counts.size:
        return None
    ends = np.append(np.flatnonzero(np.diff(counts)), len(counts) - 1)
    lengths = np.diff(ends, prepend=-1)
    # A dict keeps the order in which counts first became stable, and `max` returns the first of equals.
    longest: dict[int, tuple[int, int]] = {}
    for end, length in zip(ends.tolist(), lengths.tolist(), strict=True):
        count = int(counts[end])
        if count > 0 and length >= max(min_interval_len, longest.get(count, (0, 0))[0]):
            longest[count] = (length, end)
    if not longest:
        return None
    count = max(longest, key=lambda candidate: longest[candidate][0])
    return longest[count][1], count


def binarize(
    anomaly_map: np.ndarray,
    score_range: tuple[float, float],
    sample_rate: int = 4,
    min_interval_len: int = 4,
    erosion_size: int = 6,
) -> BinarizedMap:
    """Binarise an anomaly map at the threshold where its main elements are stable; ``ValueError`` for bad arguments.

    Returns mask, threshold and number of components. Where the map has no stable interval, the mask is empty. The map
    is ``(H, W)``, integer or float; for ``score_range`` see :func:`fit_score_range`. ``sample_rate`` is the step
    between thresholds, on the scale from 0 to 255 (4 in the paper), ``min_interval_len`` the shortest run of equal
    counts that is stable (4 in the paper), ``erosion_size`` the side in pixels of the square that masks are eroded with
    (6 in the paper), 0 for none.
    """
    array = check_map(anomaly_map)
    low, high = check_range(score_range)
    _check_at_least("min_interval_len", min_interval_len, 1)
    sweep = build_sweep(array, (low, high), sample_rate, erosion_size)
    interval = select_interval(sweep.count_stable(min_interval_len), min_interval_len)
    if interval is None:
        return BinarizedMap(np.zeros(array.shape, dtype=bool), high, 0)
    end, num_components = interval
    threshold = int(sweep.thresholds[end]) * (high - low) / 255 + low
    if array.dtype.kind in "ui":
        threshold = float(int(threshold))
    # A Python float would be cast down to the precision of the map; a float64 casts the map up.
    above = (array > np.float64(threshold)).view(np.uint8)
    return BinarizedMap(_erode(above, erosion_size).view(bool), threshold, num_components)


def binarize_batch(
    anomaly_maps: np.ndarray,
    score_range: tuple[float, float],
    sample_rate: int = 4,
    min_interval_len: int = 4,
    erosion_size: int = 6,
    *,
    num_threads: int | None = None,
) -> list[BinarizedMap]:
    """Binarise maps ``(B, H, W)``, each by itself as :func:`binarize` does, in a pool of threads.

    There is a thread a processor, at most 4, as the calls are too short to fill more.
    """
    if np.ndim(anomaly_maps) != 3:
        msg = f"`anomaly_maps` must have shape (B, H, W), got {np.shape(anomaly_maps)}; use `binarize` for one map."
        raise ValueError(msg)
    num_threads = min(4, os.cpu_count() or 1) if num_threads is None else num_threads
    _check_at_least("num_threads", num_threads, 1)

    def binarize_one(anomaly_map: np.ndarray) -> BinarizedMap:
        return binarize(anomaly_map, score_range, sample_rate, min_interval_len, erosion_size)

    num_threads = min(num_threads, len(anomaly_maps))
    if num_threads <= 1:
        return [binarize_one(anomaly_map) for anomaly_map in anomaly_maps]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(binarize_one, anomaly_maps))


def build_sweep(
    array: np.ndarray, score_range: tuple[float, float], sample_rate: int = 4, erosion_size: int = 6
) -> ThresholdSweep:
    """Quantise and erode a map ``(H, W)``, ready for the sweep; arguments as :func:`binarize`."""
    _check_at_least("erosion_size", erosion_size, 0)
    thresholds = sweep_thresholds(sample_rate)
    # A flat erosion commutes with thresholding: one erosion of the grey values stands for one a threshold.
    # It is quantised rounding up: against a whole threshold, x and ceil(x) compare alike.
    values = np.arange(256) if array.dtype == np.uint8 else array
    levels = np.ceil(_scaled(values, *score_range)).astype(np.uint8)
    levels = cv2.LUT(array, levels) if array.dtype == np.uint8 else levels
    return ThresholdSweep(_erode(levels, erosion_size), thresholds)


def _scaled(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale a range to 0 to 255 in float64, and clip."""
    if low == high:
        return np.zeros(array.shape)
    scaled = np.subtract(array, np.float64(low), dtype=np.float64)
    scaled /= high - low
    scaled *= 255
    return np.clip(scaled, 0, 255, out=scaled)


def _erode(mask: np.ndarray, size: int) -> np.ndarray:
    """Erode a uint8 array with a square of ones; what lies beyond the border does not erode."""
    return cv2.erode(mask, np.ones((size, size), dtype=np.uint8)) if size > 1 else mask


def check_map(anomaly_map: np.ndarray, name: str = "anomaly_map") -> np.ndarray:
    """Return a map as a contiguous array, or raise."""
    array = np.asarray(anomaly_map)
    if array.ndim != 2 or array.size == 0:
        msg = f"`{name}` must have shape (H, W) and not be empty, got {array.shape}; pass one map at a time."
        raise ValueError(msg)
    if array.dtype.kind not in "uif":
        msg = f"`{name}` must be of an integer or float type, got {array.dtype}; convert it first."
        raise ValueError(msg)
    if array.dtype.kind == "f" and not (np.isfinite(array.max()) and np.isfinite(array.min())):
        msg = f"`{name}` must be finite, got NaN or infinity; check the detector, or leave this map out."
        raise ValueError(msg)
    return np.ascontiguousarray(array)


def check_range(score_range: tuple[float, float]) -> tuple[float, float]:
    """Return a score range as two floats, or raise."""
    low, high = (float(end) for end in score_range)
    if not (low <= high and np.isfinite(high - low)):
        msg = f"`score_range` must be finite and ascending, got {(low, high)}; take it from `fit_range`."
        raise ValueError(msg)
    return low, high


def _check_at_least(name: str, value: int, smallest: int) -> None:
    """Raise if an option is not a whole number, or is too small."""
    if value != int(value) or value < smallest:
        msg = f"`{name}` must be a whole number, {smallest} or more, got {value}; the paper's default will do."
        raise ValueError(msg)
