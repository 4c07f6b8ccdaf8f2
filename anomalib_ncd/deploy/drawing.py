# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A picture of a result: regions outlined and named."""

from __future__ import annotations

import cv2
import numpy as np

from anomalib_ncd.deploy.results import ImageResult, RegionResult

BAND_PX = 22
COLOURS_RGB = ((90, 90, 90), (255, 140, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233))
UNKNOWN_RGB = (200, 0, 0)


def draw_result(pixels: np.ndarray, result: ImageResult) -> np.ndarray:
    """Draw the regions of an image, under a band that says its class.

    Args:
        pixels: The image, ``(H, W, 3)`` uint8 RGB.
        result: Its result, with masks.

    Returns:
        ``(H + 22, W, 3)`` uint8.
    """
    canvas = np.ascontiguousarray(pixels).copy()
    if result.num_anomalies:
        for region in result.regions:
            _draw_region(canvas, region)
    band = np.full((BAND_PX, canvas.shape[1], 3), 255, np.uint8)
    _write(band, f"{_title(result)} {result.confidence:.2f}", (4, BAND_PX - 7), (0, 0, 0))
    return np.concatenate([band, canvas])


def _draw_region(canvas: np.ndarray, region: RegionResult) -> None:
    """Outline a region's mask and box, and name it."""
    colour = UNKNOWN_RGB if region.is_unknown else COLOURS_RGB[region.class_id % len(COLOURS_RGB)]
    left, top, right, bottom = (round(edge) for edge in region.box_xyxy)
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, 1)
    if region.mask is not None:
        contours = cv2.findContours(region.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(canvas, contours, -1, colour, 1, offset=(left, top))
    _write(canvas, "unknown" if region.is_unknown else region.class_name, (max(left, 0) + 3, max(top, 0) + 12), colour)


def _title(result: ImageResult) -> str:
    """Name of an image's class."""
    name = "unknown" if result.is_unknown else str(result.class_name)
    return f"good ({name})" if result.is_normal and name != "normal" else name


def _write(canvas: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Write a line; OpenCV's fonts have ASCII alone."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(canvas, plain, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
