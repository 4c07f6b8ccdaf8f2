# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions as the settings say: the score range of a set of maps, then the regions of each image."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from anomalib_ncd.regions.crops import Region, extract_regions
from anomalib_ncd.regions.elements import cut_elements, find_elements, label_elements
from anomalib_ncd.regions.mebin import BinarizedMap, binarize, check_map, range_of_peaks
from anomalib_ncd.regions.robust_range import fit_robust_range, map_facts
from anomalib_ncd.regions.settings import RegionMethod, RegionSettings

logger = logging.getLogger(__name__)


def fit_range(
    maps: Iterable[np.ndarray],
    method: RegionMethod,
    normal_maps: Iterable[np.ndarray] = (),
    names: Sequence[str] | None = None,
) -> tuple[float, float]:
    """Find the score range of a set of maps, and warn of maps that look wrong.

    Returns lower and upper end of the range. ``ValueError`` if there is no map, or one is not valid. Maps ``(H, W)``
    are read one at a time. For the method ``"mebin"`` the range is the paper's, from the lowest to the highest peak.
    ``normal_maps`` are of normal images that the detector wasn't trained on; the paper has none. Warnings call maps by
    ``names``, such as their files, or by their numbers.
    """
    facts = [map_facts(array) for array in maps]
    fitted = fit_robust_range(facts, [map_facts(array) for array in normal_maps])
    names = [f"map {index}" for index in range(len(facts))] if names is None else names
    if fitted.hot:
        logger.warning(
            "%s has a peak more than five times as high as all others%s. The score range %s.",
            names[fitted.hot[-1]],
            f", as have {len(fitted.hot) - 1} more" if len(fitted.hot) > 1 else "",
            "leaves the others without a mask; set `score_range`, or another `regions.method`"
            if method == "mebin"
            else "is that of the others",
        )
    if fitted.is_inverted:
        logger.warning(
            "Most of a typical anomaly map is nearly as high as its peak, as in %s; high values must mean anomalous. "
            "Are the maps inverted?",
            names[0],
        )
    return range_of_peaks([(entry.peak, entry.lowest) for entry in facts]) if method == "mebin" else fitted.score_range


class UnitCheck:
    """Warns once of a map of which even the lowest value is above all that the maps of a run had."""

    def __init__(self, score_range: tuple[float, float], settings: RegionSettings) -> None:
        self._score_range = score_range
        self._highest = score_range[1] if settings.method in {"mebin", "elements"} else np.inf

    def __call__(self, anomaly_map: np.ndarray, name: object) -> None:
        """Look at the map of an image that is called so in the warning."""
        lowest = float(np.min(anomaly_map)) if np.size(anomaly_map) else np.inf
        if self._highest < lowest < np.inf:
            self._highest = np.inf
            logger.warning(
                "All of the anomaly map of %s is above the run's score range, %.4g to %.4g. If other maps are so as "
                "well, they are in other units than those of the run.",
                name,
                *self._score_range,
            )


def cut_regions(
    image: np.ndarray, anomaly_map: np.ndarray, score_range: tuple[float, float], settings: RegionSettings
) -> tuple[BinarizedMap, list[Region]]:
    """Find and cut the regions of an image as the settings say.

    Returns the binarised map and its regions, largest first. Only MEBin has a region where nothing was found.
    ``ValueError`` if the image or the map is not valid, or the sides of the map are swapped. The image is ``(H, W, 3)``
    uint8, its anomaly map ``(h, w)`` of any size, integer or float; for ``score_range`` see :func:`fit_range`.
    """
    swapped = image.shape[1::-1]
    if anomaly_map.shape == swapped != image.shape[:2]:
        (width, height), (map_height, map_width) = swapped, anomaly_map.shape
        msg = (
            f"the image is {width}x{height} pixels and its anomaly map {map_width}x{map_height}: sides are swapped; "
            "turn the map, or make it from the image as it is shown upright"
        )
        raise ValueError(msg)
    if settings.method == "mebin":
        sweep = settings.sample_rate, settings.min_interval_len, settings.erosion_size
        binarized = binarize(anomaly_map, score_range, *sweep)
        return binarized, extract_regions(image, anomaly_map, binarized, score_range, settings)
    elements, threshold = _elements(check_map(anomaly_map), score_range, settings)
    regions = cut_elements(image, elements, anomaly_map, score_range, settings)
    return BinarizedMap(elements > 0, threshold, len(regions)), regions


def _elements(
    anomaly_map: np.ndarray, score_range: tuple[float, float], settings: RegionSettings
) -> tuple[np.ndarray, float]:
    """Numbered elements and their threshold, with all methods but MEBin."""
    if settings.method == "elements":
        return find_elements(anomaly_map, score_range, settings.merge_distance_ratio)
    threshold = settings.threshold
    mask = anomaly_map > 0 if threshold is None else anomaly_map >= threshold
    return label_elements(mask, anomaly_map, settings.merge_distance_ratio), float(threshold or 0)
