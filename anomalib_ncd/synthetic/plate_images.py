# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Generated images of a brushed metal plate, with and without defects, and anomaly maps for them."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_ncd.synthetic.plate_defects import check_kinds, paint_defect
from anomalib_ncd.synthetic.shapes import BoolMask, FloatImage, dilate, smooth_noise

MIN_IMAGE_SIZE_PX = 64
_PLATE_HALF_RATIO = 0.465
_BOLTS = ((-0.37, -0.37), (0.37, 0.37))
_BOLT_RADIUS_RATIO = 0.042


def draw_part(rng: np.random.Generator, size: int = 256) -> NDArray[np.uint8]:
    """Draw a good part ``(size, size, 3)``: a brushed metal plate with a chamfered edge and two bolt holes.

    Position, rotation, illumination and the grain of the surface vary a little from call to call.
    """
    return _draw_plate(rng, size)[0]


def make_image(
    kinds: Sequence[str], rng: np.random.Generator, size: int = 256
) -> tuple[NDArray[np.uint8], dict[str, BoolMask]]:
    """Draw a part with one defect of each given kind; the defects keep a distance from each other.

    The part is the one that ``draw_part`` draws with an equal generator. Returns the RGB image ``(size, size, 3)``,
    ``uint8``, and the mask of each kind, ``(size, size)``, bool. ``ValueError`` if a kind is unknown or repeated, the
    size is below 64, or the defects don't fit.
    """
    check_kinds(kinds, "kinds")
    image, avoid = _draw_plate(rng, size)
    masks = {}
    for kind in kinds:
        image, masks[kind] = paint_defect(image, kind, rng, avoid=avoid)
        avoid = avoid | dilate(masks[kind], max(3, size // 16))
    return image, masks


def simulate_anomaly_map(mask: BoolMask, rng: np.random.Generator, size_hw: tuple[int, int] = (256, 256)) -> FloatImage:
    """Simulate what a detector would answer, ``float32`` in 0..1, to an image with defects ``(H, W)``, bool, or none.

    The answer is blurred, differs in strength from defect to defect, is weaker at the border of the image, sits on a
    noisy background and has a false alarm now and then.
    """
    if mask.ndim != 2:
        msg = f"`mask` must have shape (H, W), got {mask.shape}."
        raise ValueError(msg)
    height, width = size_hw
    side = min(size_hw)
    small = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0
    # A detector's patches are coarse: a thin defect looks thicker, and close pieces look like one.
    grown = dilate(small, max(1, round(side * 0.012)))
    answer = np.zeros(size_hw, dtype=np.float32)
    num_labels, labels = cv2.connectedComponents(grown.astype(np.uint8))
    for label in range(1, num_labels):
        blurred = cv2.GaussianBlur((labels == label).astype(np.float32), (0, 0), max(1.0, side * 0.02))
        answer = np.maximum(answer, np.float32(rng.uniform(0.65, 1.0)) * blurred / blurred.max())
    answer *= 0.8 + 0.2 * smooth_noise(rng, size_hw, side / 12)
    answer = np.maximum(answer, _false_alarm(rng, size_hw))
    # The sensitivity of a detector falls to 0.55 at the border.
    ramps = [np.clip(np.minimum(np.arange(n) + 1, n - np.arange(n)) / (0.1 * n), 0, 1) for n in size_hw]
    sensitivity = (0.55 + 0.45 * np.outer(*ramps)).astype(np.float32)
    background = 0.04 + 0.1 * smooth_noise(rng, size_hw, side / 16) + rng.normal(0, 0.006, size_hw)
    return np.clip(background + (1 - background) * answer * sensitivity, 0, 1).astype(np.float32)


def _false_alarm(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatImage:
    """A weak bell somewhere in one map of five, zero in the others."""
    happens = rng.random() < 0.2
    x, y = rng.uniform(0.1, 0.9, 2) * (size_hw[1], size_hw[0])
    strength, spread = rng.uniform(0.15, 0.35), rng.uniform(0.02, 0.04) * min(size_hw)
    rows, cols = np.indices(size_hw, dtype=np.float32)
    bell = np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    return (happens * strength * bell).astype(np.float32)


def _draw_plate(rng: np.random.Generator, size: int) -> tuple[NDArray[np.uint8], BoolMask]:
    """Draw the plate, and mark the pixels that are not its plain surface."""
    if size < MIN_IMAGE_SIZE_PX:
        msg = f"`size` must be at least {MIN_IMAGE_SIZE_PX} pixels, got {size}."
        raise ValueError(msg)
    u, v = _plate_coordinates(rng, size)
    edge = _rounded_square(u, v) * size  # signed distance to the plate's outline in pixels, negative inside
    bolts = np.minimum(*(np.hypot(u - x, v - y) - _BOLT_RADIUS_RATIO for x, y in _BOLTS)) * size
    surface = 158 + _grain(rng, size)
    chamfer_px = size * 0.018
    facing = np.where(np.abs(u) > np.abs(v), -np.sign(u) * 0.6, -np.sign(v) * 0.8)
    surface += 34 * facing * np.clip((edge + chamfer_px) + 0.5, 0, 1)
    surface += 30 * np.exp(-(((bolts - 0.008 * size) / (0.008 * size)) ** 2))
    depth = 34 + 150 * np.clip(np.minimum(*(np.hypot(u - x, v - y - 0.012) for x, y in _BOLTS)) - 0.02, 0, 0.3)
    surface = _over(surface, depth, np.clip(0.5 - bolts, 0, 1))
    backdrop = 30 + 6 * smooth_noise(rng, (size, size), size / 6) - 12 * np.exp(-np.clip(edge, 0, None) / (0.02 * size))
    surface = _over(surface, backdrop, np.clip(edge + 0.5, 0, 1))
    lit = surface * _illumination(rng, u, v)
    rgb = lit[..., None] * rng.uniform([0.985, 0.99, 0.995], [1.0, 1.0, 1.03])
    rgb = rgb + rng.normal(0, 1.6, (size, size, 1))
    not_surface = (edge > -chamfer_px - size * 0.012) | (bolts < size * 0.03)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), not_surface


def _over(below: NDArray[np.floating], above: NDArray[np.floating], alpha: NDArray[np.floating]) -> FloatImage:
    return (below + alpha * (above - below)).astype(np.float32)


def _plate_coordinates(rng: np.random.Generator, size: int) -> tuple[FloatImage, FloatImage]:
    """Position of each pixel on a plate that lies a little off centre and turned; the plate spans about -0.5 to 0.5."""
    rows, cols = np.indices((size, size), dtype=np.float32)
    (x, y), angle = rng.uniform(-0.012, 0.012, 2), np.deg2rad(rng.uniform(-1.5, 1.5))
    u, v = (cols + 0.5) / size - 0.5 - np.float32(x), (rows + 0.5) / size - 0.5 - np.float32(y)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * u + sin * v, cos * v - sin * u


def _rounded_square(u: FloatImage, v: FloatImage) -> FloatImage:
    """Signed distance to the plate's outline in plate units."""
    corner = 0.06
    over_u, over_v = np.abs(u) - (_PLATE_HALF_RATIO - corner), np.abs(v) - (_PLATE_HALF_RATIO - corner)
    outside = np.hypot(np.maximum(over_u, 0), np.maximum(over_v, 0))
    return outside + np.minimum(np.maximum(over_u, over_v), 0) - np.float32(corner)


def _grain(rng: np.random.Generator, size: int) -> FloatImage:
    """Brushing marks along the rows: long strokes, short strokes and slow clouds."""
    grain = np.zeros((size, size), dtype=np.float32)
    for length_ratio, strength in ((0.35, 5.0), (0.08, 3.5)):
        length = max(3, round(size * length_ratio))
        noise = rng.normal(0, 1, (size, size + length)).astype(np.float32)
        strokes = cv2.blur(noise, (length, 1))[:, length // 2 : length // 2 + size]
        grain += np.float32(strength) * strokes / strokes.std()
    return grain + 8 * (smooth_noise(rng, (size, size), size / 5) - 0.5)


def _illumination(rng: np.random.Generator, u: FloatImage, v: FloatImage) -> FloatImage:
    """Lamp from the top left, a soft reflection band, and vignetting."""
    level, slope = rng.uniform(0.94, 1.04), rng.uniform(0.06, 0.14)
    band = 0.06 * np.exp(-(((u + v - rng.uniform(-0.25, 0.25)) / 0.22) ** 2))
    return (level - slope * (0.6 * u + 0.8 * v) + band - 0.35 * (u**2 + v**2)).astype(np.float32)
