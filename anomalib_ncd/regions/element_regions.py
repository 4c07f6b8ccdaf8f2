# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""One region for each element of an image; crops may overlap, masks don't."""

import cv2
import numpy as np

from anomalib_ncd.regions.boxes import square_boxes
from anomalib_ncd.regions.crops import Region, crop


def cut_elements(
    image: np.ndarray,
    elements: np.ndarray,
    anomaly_map: np.ndarray,
    score_range: tuple[float, float],
    *,
    padding_ratio: float = 0.1,
    min_size_ratio: float = 0.1,
) -> list[Region]:
    """Cut the regions of numbered elements out of an image.

    Args:
        image: ``(H, W, 3)`` uint8.
        elements: ``(h, w)`` int32 at any size, see :func:`~anomalib_ncd.regions.elements.label_elements`.
        anomaly_map: ``(h, w)``, integer or float.
        score_range: Scores are 0 at its lower end and 1 at its upper one.
        padding_ratio: What is added to the longer side of an element to make the side of its square.
        min_size_ratio: Half of a square's side is at least this part of the image's longer side.

    Returns:
        Regions, each with the mask and the highest score of its own element, the largest element first; none where
        there is no element.

    Raises:
        ValueError: If the image, the elements or the map is not valid.

    Example:
        >>> elements = np.zeros((32, 32), dtype=np.int32)
        >>> elements[8:12, 8:12], elements[8:12, 14:16] = 1, 2
        >>> image = np.zeros((64, 64, 3), dtype=np.uint8)
        >>> [(region.box_xyxy, region.area) for region in cut_elements(image, elements, elements, (0, 2))]
        [((14.0, 14.0, 26.0, 26.0), 64), ((24.0, 14.0, 36.0, 26.0), 32)]
    """
    image, elements, anomaly_map = np.asarray(image), np.asarray(elements), np.asarray(anomaly_map)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        msg = f"`image` must have shape (H, W, 3) and be uint8, got {image.shape}, {image.dtype}; convert it to RGB."
        raise ValueError(msg)
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
    for index, box in zip(order, square_boxes(rectangles[order], size_hw, padding_ratio, min_size_ratio), strict=True):
        left, top, right, bottom = box.tolist()
        mask = crop(numbers, box) == index + 1
        regions.append(Region((left, top, right, bottom), scores[index], int(areas[index]), crop(image, box), mask))
    return regions


def _element_scores(
    elements: np.ndarray,
    anomaly_map: np.ndarray,
    count: int,
    score_range: tuple[float, float],
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
