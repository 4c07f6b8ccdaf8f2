# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions: the anomaly-centred crops of "AnomalyNCD" (Huang et al., CVPR 2025), with their mask, score and area.

Boxes are half-open pixels of the image, left, top, right, bottom.
"""

import logging
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from anomalib_ncd.regions.boxes import merge_close_boxes, square_boxes
from anomalib_ncd.regions.mebin import BinarizedMap, normalize_anomaly_map
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.views import resize_antialiased

MAX_CROP_PIXELS = 100_000_000  # of the regions of an image, all together

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """The crop around a main element."""

    box_xyxy: tuple[float, float, float, float]  # its box in the image; may be fractional, or leave the image
    score: float  # highest normalised anomaly score inside, from 0 to 1
    area: int  # number of anomalous pixels; 0 where the map has no main element
    # Pixels, (h, w, 3) uint8; see :func:`crop_pixels` for outside the image. Empty where they are kept elsewhere.
    image: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8), compare=False, repr=False)
    # Anomalous pixels, (h, w) bool; likewise
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool), compare=False, repr=False)


def region_boxes(mask: np.ndarray, num_components: int, settings: RegionSettings | None = None) -> np.ndarray:
    """Find the boxes of the regions of an image: a square one for each external contour of the mask, close ones merged.

    If there are more than `num_components`, which :func:`~anomalib_ncd.regions.mebin.binarize` estimates, the largest
    ``num_components + 1`` are kept. The mask ``(H, W)`` bool has the size of the image. Returns ``(N, 4)`` float64,
    largest first; may be fractional; the whole image where the mask is empty.
    """
    mask, settings = _check_mask(mask), settings or RegionSettings()
    if num_components < 0:
        msg = f"`num_components` must be 0 or more, got {num_components}; take what MEBin estimates."
        raise ValueError(msg)
    height, width = mask.shape
    contours = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return np.array([[0, 0, width, height]], dtype=np.float64)
    rectangles = sorted((cv2.boundingRect(contour) for contour in contours), key=lambda r: (r[2] * r[3], r))
    boxes = square_boxes(np.array(rectangles), (height, width), settings.padding_ratio, settings.min_size_ratio)
    boxes = merge_close_boxes(boxes, int(max(height, width) * settings.merge_distance_ratio))
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    boxes = boxes[np.argsort(-areas, kind="stable")]
    return boxes[: num_components + 1]


def crop(array: np.ndarray, box_xyxy: np.ndarray | tuple[float, float, float, float]) -> np.ndarray:
    """Cut a box out of an array ``(H, W)`` or ``(H, W, C)``, as a copy; what lies outside the array is 0.

    The box is in half-open pixels; fractions are rounded, halves to the even number, as Pillow does.
    """
    array = np.asarray(array)
    if array.ndim not in {2, 3}:
        msg = f"`array` must have shape (H, W) or (H, W, C), got {array.shape}; pass one image at a time."
        raise ValueError(msg)
    left, top, right, bottom = _rounded(box_xyxy)
    cut = np.zeros((bottom - top, right - left, *array.shape[2:]), dtype=array.dtype)
    inside = array[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.size:
        row, column = max(-top, 0), max(-left, 0)
        cut[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return cut


def crop_pixels(image: np.ndarray, box_xyxy: np.ndarray, mask: np.ndarray, method: str) -> np.ndarray:
    """Cut a box out of an image; outside it is the mean colour of the crop beside its mask ``(h, w)``, for MEBin black.

    Black ends the image with a step that looks like a dark defect, or like the surroundings of a light one.
    """
    cut = crop(image, box_xyxy)
    inside = crop(np.broadcast_to(np.True_, image.shape[:2]), box_xyxy)
    if method != "mebin" and not inside.all():
        beside = inside & ~mask
        cut[~inside] = np.round(cut[beside if beside.any() else inside].mean(axis=0))
    return cut


def region_scores(
    anomaly_map: np.ndarray, score_range: tuple[float, float], boxes_xyxy: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """Score boxes of an image by the highest normalised anomaly score inside them, ``(N,)`` from 0 to 1; 0 outside.

    The normalised map is resized to the image with Pillow's bicubic filter; boxes are rounded as :func:`crop` does.
    """
    if len(size_hw) != 2 or min(size_hw) < 1:
        msg = f"`size_hw` must be height and width, 1 or more, got {size_hw}; pass `image.shape[:2]`."
        raise ValueError(msg)
    scores = normalize_anomaly_map(anomaly_map, score_range)
    peaks = [_peak_inside(scores, box, size_hw) for box in np.reshape(boxes_xyxy, (-1, 4))]
    # The filter overshoots next to sharp peaks.
    return np.clip(np.array(peaks, dtype=np.float64) / 255, 0, 1)


def _peak_inside(scores: np.ndarray, box_xyxy: np.ndarray, size_hw: tuple[int, int]) -> float:
    """Highest value in a box of a map at the size of the image, of which only that part is made; 0 outside of it."""
    corners = np.clip(np.reshape(_rounded(box_xyxy), (2, 2)), 0, size_hw[::-1])
    (left, top), (right, bottom) = corners.tolist()
    if left == right or top == bottom:
        return 0.0
    if scores.shape == tuple(size_hw):
        return float(scores[top:bottom, left:right].max())
    size = (bottom - top, right - left)
    left, top, right, bottom = (corners * scores.shape[::-1] / np.array(size_hw[::-1])).ravel().tolist()
    return float(resize_antialiased(scores, size, Image.Resampling.BICUBIC, (left, top, right, bottom)).max())


def extract_regions(
    image: np.ndarray,
    anomaly_map: np.ndarray,
    binarized: BinarizedMap,
    score_range: tuple[float, float],
    settings: RegionSettings | None = None,
) -> list[Region]:
    """Cut the regions out of an image.

    Returns regions, largest first. Where the mask is empty there is one: the whole image. ``ValueError`` if the image,
    the map or the mask is not valid. The image is ``(H, W, 3)`` uint8, its anomaly map ``(h, w)`` of any size, integer
    or float; ``score_range`` is the lower and upper end of the set of maps, and ``settings`` say how regions are cut,
    as the paper's where ``None``.
    """
    settings = settings or RegionSettings()
    image = check_image(image)
    height, width = image.shape[:2]
    small_mask = _check_mask(binarized.mask)
    mask = cv2.resize(small_mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    boxes = _largest_in_memory(region_boxes(mask, binarized.num_components, settings))
    scores = region_scores(anomaly_map, score_range, boxes, (height, width))
    regions = []
    for box, score in zip(boxes, scores, strict=True):
        left, top, right, bottom = box.tolist()
        cut = crop(mask, box)
        regions.append(Region((left, top, right, bottom), float(score), int(cut.sum()), crop(image, box), cut))
    return regions


def _largest_in_memory(boxes_xyxy: np.ndarray) -> np.ndarray:
    """The first, largest boxes that go into memory together as crops; a mask of noise has thousands."""
    areas = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    count = max(1, int(np.searchsorted(np.cumsum(areas), MAX_CROP_PIXELS, side="right")))
    if count < len(boxes_xyxy):
        logger.warning("An anomaly map leads to %d large regions; the first %d are kept.", len(boxes_xyxy), count)
    return boxes_xyxy[:count]


def check_image(image: np.ndarray) -> np.ndarray:
    """Return an image as an array, or raise."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        msg = f"`image` must have shape (H, W, 3) and be uint8, got {image.shape}, {image.dtype}; convert it to RGB."
        raise ValueError(msg)
    return image


def _check_mask(mask: np.ndarray) -> np.ndarray:
    """Return a mask as a bool array, or raise."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0:
        msg = f"`mask` must have shape (H, W) and not be empty, got {mask.shape}; pass one mask at a time."
        raise ValueError(msg)
    return mask.astype(bool)


def _rounded(box_xyxy: np.ndarray | tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """A box in whole pixels, halves to the even number; or raise."""
    left, top, right, bottom = (round(float(edge)) for edge in box_xyxy)
    if right < left or bottom < top:
        msg = f"`box_xyxy` must be left, top, right, bottom, got {tuple(box_xyxy)}; swap its edges."
        raise ValueError(msg)
    return left, top, right, bottom
