# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions as the settings say: the score range of a set of maps, then the regions of each image."""

import logging
from collections.abc import Iterable

import cv2
import numpy as np

from anomalib_ncd.regions.crops import Region, extract_regions
from anomalib_ncd.regions.element_regions import cut_elements
from anomalib_ncd.regions.elements import binarize_elements, label_elements
from anomalib_ncd.regions.mebin import BinarizedMap, binarize, check_map, fit_score_range
from anomalib_ncd.regions.robust_range import fit_robust_range, map_facts
from anomalib_ncd.regions.settings import RegionMethod, RegionSettings

logger = logging.getLogger(__name__)


def fit_range(
    maps: Iterable[np.ndarray],
    method: RegionMethod,
    normal_maps: Iterable[np.ndarray] = (),
) -> tuple[float, float]:
    """Find the score range of a set of maps, and warn of maps that look wrong.

    Args:
        maps: Anomaly maps, each ``(H, W)``; read one at a time.
        method: The paper's range for ``"mebin"``, else the robust one.
        normal_maps: Maps of normal images; the paper has none.

    Returns:
        Lower and upper end of the range.

    Raises:
        ValueError: If there is no map, or one is not valid.

    Example:
        >>> maps = [np.array([[0, 1, 8]]), np.array([[1, 0, 8]]), np.array([[1, 0, 90]])]
        >>> fit_range(maps, "mebin"), fit_range(maps, "elements")
        ((8.0, 90.0), (0.25, 8.75))
    """
    if method == "mebin":
        return fit_score_range(maps)
    fitted = fit_robust_range([map_facts(array) for array in maps], [map_facts(array) for array in normal_maps])
    if fitted.hot:
        logger.warning(
            "Maps %s have peaks more than five times as high as all others; the score range is that of the others.",
            ", ".join(map(str, fitted.hot)),
        )
    if fitted.is_inverted:
        logger.warning("Most of each anomaly map is nearly as high as its peak; are the maps inverted?")
    return fitted.score_range


def cut_regions(
    image: np.ndarray,
    anomaly_map: np.ndarray,
    score_range: tuple[float, float],
    settings: RegionSettings,
    mask: np.ndarray | None = None,
) -> tuple[BinarizedMap, list[Region]]:
    """Find and cut the regions of an image as the settings say.

    Args:
        image: ``(H, W, 3)`` uint8.
        anomaly_map: Its anomaly map at any size, ``(h, w)``, integer or float.
        score_range: Lower and upper end of the set of maps, see :func:`fit_range`.
        settings: How regions are found and cut.
        mask: Mask at any size, ``(h, w)``, of what is anomalous; for the method ``"masks"`` alone.

    Returns:
        The binarised map and its regions, largest first. Only MEBin has a region where nothing was found.

    Raises:
        ValueError: If the image, the map or the mask is not valid, or the sides of the map are swapped.
    """
    swapped = image.shape[1::-1]
    if anomaly_map.shape == swapped != image.shape[:2]:
        (width, height), (map_height, map_width) = swapped, anomaly_map.shape
        msg = (
            f"the image is {width}x{height} pixels and its anomaly map {map_width}x{map_height}: sides are swapped; "
            "turn the map, or make it from the image as it is shown upright"
        )
        raise ValueError(msg)
    if (settings.method == "masks") != (mask is not None):
        msg = f"`mask` must be given with the method 'masks' alone, the method is {settings.method!r}."
        raise ValueError(msg)
    if settings.method == "mebin":
        binarized = binarize(
            anomaly_map, score_range, settings.sample_rate, settings.min_interval_len, settings.erosion_size
        )
        return binarized, extract_regions(image, anomaly_map, binarized, score_range, settings)
    anomaly_map = check_map(anomaly_map)
    if mask is not None and mask.shape != anomaly_map.shape:
        anomaly_map = cv2.resize(anomaly_map.astype(np.float32), mask.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    binarized = _binarized(anomaly_map, score_range, settings, mask)
    elements = label_elements(binarized.mask, anomaly_map, settings.merge_distance_ratio)
    regions = cut_elements(
        image,
        elements,
        anomaly_map,
        score_range,
        padding_ratio=settings.padding_ratio,
        min_size_ratio=settings.min_size_ratio,
    )
    return binarized._replace(num_components=len(regions)), regions


def _binarized(
    anomaly_map: np.ndarray,
    score_range: tuple[float, float],
    settings: RegionSettings,
    mask: np.ndarray | None,
) -> BinarizedMap:
    """Mask of all elements; their number is not counted yet where it is given by a mask or a threshold."""
    if mask is not None:
        return BinarizedMap(np.asarray(mask) > 0, sum(score_range) / 2, 0)
    if settings.threshold is not None:
        return BinarizedMap(anomaly_map >= settings.threshold, float(settings.threshold), 0)
    return binarize_elements(anomaly_map, score_range)
