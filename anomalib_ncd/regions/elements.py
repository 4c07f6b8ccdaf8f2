# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The elements of an anomaly map: what stands out in it, each by itself, and one region for each.

Where MEBin looks for one threshold at which the number of components is stable, here an image has elements if its peak
lies above the floor of the score range, see :mod:`~anomalib_ncd.regions.robust_range`. What stands out must do so among
all maps, and in its own map: above a restless background only what comes near the peak counts, above a quiet one weak
elements count as well. Each element is then cut at half its own height. Nothing is eroded, and no length is in pixels:
maps of other sizes have the same elements. Crops may overlap, masks don't.
"""

import logging

import cv2
import numpy as np

from anomalib_ncd.regions.boxes import square_boxes
from anomalib_ncd.regions.crops import Region, check_image, crop, crop_pixels
from anomalib_ncd.regions.mebin import check_map, check_range
from anomalib_ncd.regions.settings import RegionSettings

logger = logging.getLogger(__name__)

_SUPPORT = 0.5
_NUM_DEVIATIONS = 5.0
_SHARE_OF_PEAK = 0.8
_SAMPLES_PER_SIDE = 128


def find_elements(
    anomaly_map: np.ndarray, score_range: tuple[float, float], merge_distance_ratio: float = 0.01
) -> tuple[np.ndarray, float]:
    """Find the elements of a map.

    An image whose peak isn't above the floor, the middle of the range, has none. In others what stands out lies at
    least half of the way from the background to the floor. It also lies above the image's own median, by five standard
    deviations or by 0.8 of what the peak lies above it. Each element is then cut at half its height. Returns numbered
    elements ``(H, W)`` int32, see :func:`label_elements`, and the threshold in map units before elements are cut. Where
    nothing stands out all are 0 and the threshold is the floor; else the peak is in the first one. The map is ``(H,
    W)``, integer or float; ``score_range`` goes from the background to as far above the floor as that is below it.
    """
    array = check_map(anomaly_map)
    low, high = check_range(score_range)
    floor, peak = (low + high) / 2, float(array.max())
    if peak <= floor:
        return np.zeros(array.shape, dtype=np.int32), floor
    # Of an even sample of large maps; the deviation by the upper quartile.
    rows, columns = (max(1, side // _SAMPLES_PER_SIDE) for side in array.shape)
    median, upper = np.quantile(array[::rows, ::columns], (0.5, 0.75)).tolist()
    deviation = (upper - median) / 0.6745
    own = median + min(_NUM_DEVIATIONS * deviation, _SHARE_OF_PEAK * (peak - median))
    threshold = max(low + _SUPPORT * (floor - low), own)
    is_level = threshold in {low, median} and threshold < peak  # what is as high as the background isn't above it
    mask = array > threshold if is_level else array >= threshold
    return cut_at_half_height(label_elements(mask, array, merge_distance_ratio), array, low), threshold


def cut_at_half_height(elements: np.ndarray, anomaly_map: np.ndarray, low: float) -> np.ndarray:
    """Take from each numbered element ``(H, W)`` what lies below half its height above `low`."""
    inside = np.flatnonzero(elements)
    values, owners = anomaly_map.ravel()[inside].astype(np.float64), elements.ravel()[inside]
    peaks = np.full(int(elements.max(initial=0)) + 1, -np.inf)
    np.maximum.at(peaks, owners, values)
    cut = elements.copy()
    cut.ravel()[inside[values < (low + peaks[owners]) / 2]] = 0
    return cut


def label_elements(
    mask: np.ndarray, anomaly_map: np.ndarray, merge_distance_ratio: float = 0.01, max_elements: int = 200
) -> np.ndarray:
    """Number the elements of a mask, one number for components that lie near each other.

    Returns ``(H, W)`` int32: 0 outside elements, 1 for the element with the highest peak, and so on. ``ValueError`` if
    the shapes differ or a number is out of its range. The mask is ``(H, W)`` bool; the map ``(H, W)`` decides which
    elements are kept, and their order. Components with no more than ``merge_distance_ratio`` of the longer side between
    them are one element, nor more than half of the components are long themselves; the distance is the larger one of
    the rows and the columns between them. Of more than ``max_elements`` the highest are kept, with a warning.
    """
    mask, array = np.ascontiguousarray(mask, dtype=bool), np.asarray(anomaly_map)
    if mask.ndim != 2 or mask.shape != array.shape:
        msg = f"`mask` and `anomaly_map` must have one shape (H, W), got {mask.shape} and {array.shape}; resize one."
        raise ValueError(msg)
    if merge_distance_ratio < 0 or max_elements < 1:
        msg = (
            "`merge_distance_ratio` must be 0 or more and `max_elements` 1 or more, "
            f"got {merge_distance_ratio} and {max_elements}; the defaults will do."
        )
        raise ValueError(msg)
    stats = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)[2][1:]
    if not len(stats):
        return np.zeros(mask.shape, dtype=np.int32)
    lengths = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    gap = round(min(merge_distance_ratio * max(mask.shape), float(np.median(lengths))))
    near = cv2.dilate(mask.view(np.uint8), np.ones((gap + 1, gap + 1), dtype=np.uint8))
    num_labels, labels = cv2.connectedComponents(near, connectivity=8)
    inside = np.flatnonzero(mask)
    owners = labels.ravel()[inside]
    peaks = np.full(num_labels, -np.inf)
    np.maximum.at(peaks, owners.astype(np.intp), array.ravel()[inside].astype(np.float64))
    order = np.argsort(-peaks[1:], kind="stable") + 1
    if len(order) > max_elements:
        logger.warning("%d elements in one map; the %d with the highest peaks are kept.", len(order), max_elements)
    numbers = np.zeros(num_labels, dtype=np.int32)
    numbers[order[:max_elements]] = np.arange(1, min(len(order), max_elements) + 1)
    elements = np.zeros(mask.shape, dtype=np.int32)
    elements.ravel()[inside] = numbers[owners]
    return elements


def cut_elements(
    image: np.ndarray,
    elements: np.ndarray,
    anomaly_map: np.ndarray,
    score_range: tuple[float, float],
    settings: RegionSettings | None = None,
) -> list[Region]:
    """Cut the regions of numbered elements out of an image.

    Returns regions, each with the mask and the highest score of its own element, the largest element first; none where
    there is no element. The image is ``(H, W, 3)`` uint8, numbered elements ``(h, w)`` int32 at any size, see
    :func:`label_elements`, the map ``(h, w)`` integer or float. Scores are 0 at the lower end of ``score_range`` and 1
    at the upper one; ``settings`` have padding and least size of the squares, the paper's where ``None``.
    """
    image, elements, anomaly_map = check_image(image), np.asarray(elements), np.asarray(anomaly_map)
    settings = settings or RegionSettings()
    if elements.ndim != 2 or elements.shape != anomaly_map.shape:
        msg = (
            "`elements` and `anomaly_map` must have one shape (h, w), "
            f"got {elements.shape} and {anomaly_map.shape}; take them from one map."
        )
        raise ValueError(msg)
    count = int(elements.max(initial=0))
    if count == 0:
        return []
    size_hw = image.shape[:2]
    scores = _element_scores(elements, anomaly_map, count, score_range)
    numbers = _resize_elements(elements, size_hw)
    rectangles, areas = _rectangles_xywh(numbers, count)
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0]  # of elements that fall on one pixel of a small image, one is left
    regions = []
    boxes = square_boxes(rectangles[order], size_hw, settings.padding_ratio, settings.min_size_ratio)
    for index, box in zip(order, boxes, strict=True):
        left, top, right, bottom = box.tolist()
        mask = crop(numbers, box) == index + 1
        pixels = crop_pixels(image, box, mask, settings.method)
        regions.append(Region((left, top, right, bottom), scores[index], int(areas[index]), pixels, mask))
    return regions


def _element_scores(
    elements: np.ndarray, anomaly_map: np.ndarray, count: int, score_range: tuple[float, float]
) -> list[float]:
    """Highest value of each element, 0 to 1 over the range."""
    low, high = score_range
    inside = np.flatnonzero(elements)
    peaks = np.full(count + 1, -np.inf)
    np.maximum.at(peaks, elements.ravel()[inside], anomaly_map.ravel()[inside].astype(np.float64))
    if low == high:
        return (peaks[1:] > high).astype(np.float64).tolist()
    return np.clip((peaks[1:] - low) / (high - low), 0, 1).tolist()


def _resize_elements(elements: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize to the image without losing an element: what falls between the pixels keeps one."""
    height, width = size_hw
    if elements.shape == (height, width):
        return elements
    # Not integers, which OpenCV doesn't resize; exact below 2 ** 24.
    numbers = cv2.resize(elements.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    found, first = np.unique(elements, return_index=True)
    is_lost = ~np.isin(found, numbers) & (found > 0)
    rows, columns = np.unravel_index(first[is_lost], elements.shape)
    numbers[rows * height // elements.shape[0], columns * width // elements.shape[1]] = found[is_lost]
    return numbers


def _rectangles_xywh(numbers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounding rectangles ``(N, 4)`` of numbers 1 to N, and their pixels ``(N,)``; both int64."""
    inside = np.flatnonzero(numbers)
    owners = numbers.ravel()[inside] - 1
    points = np.stack([inside % numbers.shape[1], inside // numbers.shape[1]], axis=1)  # x, y
    first, last = np.full((count, 2), max(numbers.shape)), np.full((count, 2), -1)
    np.minimum.at(first, owners, points)
    np.maximum.at(last, owners, points)
    return np.concatenate([first, last + 1 - first], axis=1), np.bincount(owners, minlength=count)
