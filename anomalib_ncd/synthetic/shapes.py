# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Soft shapes, strokes and noise from which generated defects are painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
BoolMask = NDArray[np.bool_]

LIGHT_XY = (-0.6, -0.8)  # direction towards the light: the top left, in every image
_SUPERSAMPLE = 4


@dataclass(frozen=True)
class Spot:
    """Where a defect goes: its centre and radius in pixels, its orientation, and the size of the image.

    ``line_px`` is the unit of line widths for a part cut out of an image; without it the image itself sets the unit.
    """

    x: float
    y: float
    radius_px: float
    angle: float
    size_hw: tuple[int, int]
    line_px: float | None = None

    @property
    def unit_px(self) -> float:
        """A line width that is one pixel in an image of 256 pixels."""
        return self.line_px or max(1.0, min(self.size_hw) / 256)

    def seen_from(self, left: int, top: int, size_hw: tuple[int, int]) -> Spot:
        """The same spot in the coordinates of a window of the image."""
        return Spot(self.x - left, self.y - top, self.radius_px, self.angle, size_hw, self.unit_px)

    def pixels(self) -> tuple[FloatImage, FloatImage]:
        """Offset of each pixel from the centre, in radii and in the image's own directions."""
        rows, cols = np.indices(self.size_hw, dtype=np.float32)
        return (cols - self.x) / self.radius_px, (rows - self.y) / self.radius_px

    def rotated_pixels(self) -> tuple[FloatImage, FloatImage]:
        """Offset of each pixel from the centre, in radii, along and across the defect's orientation."""
        dx, dy = self.pixels()
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return cos * dx + sin * dy, cos * dy - sin * dx

    def to_image(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Bring ``(N, 2)`` points from radii along and across the orientation to pixels of the image."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        return points @ rotation * self.radius_px + (self.x, self.y)


def dilate(mask: BoolMask, margin_px: int) -> BoolMask:
    """Grow a mask ``(H, W)`` by ``margin_px`` pixels, 0 or more, in all eight directions."""
    kernel = np.ones((2 * margin_px + 1, 2 * margin_px + 1), dtype=np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def smooth_noise(rng: np.random.Generator, size_hw: tuple[int, int], cell_px: float) -> FloatImage:
    """Draw noise ``(H, W)``, ``float32`` in 0..1, that changes over a length of ``cell_px`` pixels."""
    rows, cols = (int(np.ceil(side / max(cell_px, 1.0))) + 2 for side in size_hw)
    grid = rng.random((rows, cols), dtype=np.float32)
    return np.clip(cv2.resize(grid, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_CUBIC), 0, 1).astype(np.float32)


def random_spot(rng: np.random.Generator, size_hw: tuple[int, int], radius_ratio: float) -> Spot:
    """Choose place and orientation; the centre is off the border, the radius a part of the image's shorter side."""
    x, y = (rng.uniform(0.15, 0.85) * side for side in (size_hw[1], size_hw[0]))
    radius_px = max(1.5, radius_ratio * min(size_hw))
    return Spot(float(x), float(y), float(radius_px), float(rng.uniform(0, 2 * np.pi)), size_hw)


def blob(spot: Spot, rng: np.random.Generator, wobble: float, aspect: float = 1.0) -> FloatImage:
    """Distance ``(H, W)`` from the centre of an irregular closed shape: 0 in the centre, 1 on the outline.

    The outline strays from an ellipse by ``wobble``, a part of the radius; ``aspect`` is length divided by width.
    """
    u, v = spot.rotated_pixels()
    v = v * np.float32(aspect)
    theta = np.arctan2(v, u)
    limit = np.ones_like(u)
    for harmonic in range(2, 8):
        strength, phase = wobble * rng.normal() / np.sqrt(harmonic), rng.uniform(0, 2 * np.pi)
        limit += np.float32(strength) * np.cos(harmonic * theta + np.float32(phase))
    return (np.hypot(u, v) / np.clip(limit, 0.35, 1.8)).astype(np.float32)


def inside(distance: FloatImage, spot: Spot, soft_px: float = 1.0) -> FloatImage:
    """Turn distance ``(H, W)``, 1 on the outline, into cover: 1 inside, 0.5 on the outline, 0 outside a soft edge."""
    return np.clip((1 - distance) * np.float32(spot.radius_px / soft_px) + 0.5, 0, 1).astype(np.float32)


def ring(distance: FloatImage, at: float, width: float) -> FloatImage:
    """Draw a bell-shaped band, 0..1, along an outline; ``at`` and half its ``width`` are in units of distance."""
    return np.exp(-(((distance - np.float32(at)) / np.float32(width)) ** 2)).astype(np.float32)


def blend(
    image: FloatImage, colour: tuple[float, float, float] | NDArray[np.floating], alpha: NDArray[np.floating]
) -> FloatImage:
    """Lay a colour, or an image of colours, over an image ``(H, W, 3)`` where ``alpha`` ``(H, W)`` in 0..1 is high."""
    return (image + alpha[..., None] * (np.asarray(colour, dtype=np.float32) - image)).astype(np.float32)


def lines(paths: Sequence[NDArray[np.floating]], widths: Sequence[NDArray[np.floating]], spot: Spot) -> FloatImage:
    """Draw polylines, ``(N, 2)`` points in pixels, of ``N - 1`` or more widths each, as cover ``(H, W)`` in 0..1."""
    canvas = _canvas(spot)
    for path, path_widths in zip(paths, widths, strict=True):
        corners = np.rint((path + 0.5) * _SUPERSAMPLE).astype(int)
        for start, end, line_px in zip(corners[:-1], corners[1:], path_widths, strict=False):
            thickness = max(1, round(float(line_px) * _SUPERSAMPLE))
            cv2.line(canvas, start.tolist(), end.tolist(), (255,), thickness)
    return _to_cover(canvas, spot)


def polygon(corners: NDArray[np.floating], spot: Spot) -> FloatImage:
    """Draw a filled polygon, ``(N, 2)`` corners in pixels, as cover ``(H, W)`` in 0..1."""
    canvas = _canvas(spot)
    cv2.fillPoly(canvas, [np.rint((corners + 0.5) * _SUPERSAMPLE).astype(np.int32)], (255,))
    return _to_cover(canvas, spot)


def shifted(cover: FloatImage, shift_px: float) -> FloatImage:
    """Move a cover ``(H, W)`` away from the light, as a shadow; a negative distance moves it towards the light."""
    move = np.array([[1, 0, -LIGHT_XY[0] * shift_px], [0, 1, -LIGHT_XY[1] * shift_px]], dtype=np.float32)
    return cv2.warpAffine(cover, move, cover.shape[::-1]).astype(np.float32)


def _canvas(spot: Spot) -> NDArray[np.uint8]:
    return np.zeros([side * _SUPERSAMPLE for side in spot.size_hw], dtype=np.uint8)


def _to_cover(canvas: NDArray[np.uint8], spot: Spot) -> FloatImage:
    """Average a drawing over the pixels of the image."""
    return cv2.resize(canvas, spot.size_hw[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
