# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Painted defects on real surfaces: as large and as strong as the image they go onto asks for.

Defects painted onto normal images have long served to train detectors: CutPaste (Li et al., CVPR 2021) and DRAEM
(Zavrtanik et al., ICCV 2021). Here they are labelled, each kind a class of its own.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_ncd.regions.crops import check_image
from anomalib_ncd.synthetic.plate_defects import MASK_COVER, MASK_MARGIN_PX, check_kinds, paint_at, radius_range
from anomalib_ncd.synthetic.shapes import BoolMask, FloatImage, Spot, dilate, random_spot

SCALES = (0.75, 1.5)  # factors on a defect's size, besides the range of its kind
CONTRASTS = (2.5, 5.0)  # of a defect, in standard deviations of the texture around it
CONTRAST_LEVELS = (9.0, 60.0)  # in grey levels: smooth surfaces show a defect, coarse ones don't drown it in black
_PLATE_LEVEL = 150.0  # grey level of the plates that the kinds of defect are drawn for
_MAX_TRIES = 30
_BORDER_TOLERANCE = 18.0


def paint_on_surface(
    image: NDArray[np.uint8], kind: str, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], BoolMask]:
    """Paint one defect onto a copy of a photograph of a normal part, RGB ``(H, W, 3)``, ``uint8``.

    Place, size, orientation and contrast are random. Size goes with the image's shorter side, contrast with the
    texture around the defect. On grey images the defect is grey. Where the surface is too dark or too bright for the
    defect, it is painted as its negative. Returns the image, and the defect's mask ``(H, W)``, bool, inside which alone
    it differs. ``ValueError`` for unknown kinds.
    """
    check_kinds([kind], "kind")
    check_image(image)
    spot = _spot_on_part(image, kind, rng)
    # What a defect can reach, with its neighbours, shadow and soft edge.
    rows, cols = _square(spot, 2.3, 6 * spot.unit_px + MASK_MARGIN_PX)
    window = image[rows, cols].astype(np.float32)
    local = spot.seen_from(cols.start, rows.start, (window.shape[0], window.shape[1]))
    levels = float(np.clip(rng.uniform(*CONTRASTS) * texture_level(window, spot.radius_px), *CONTRAST_LEVELS))
    seed = int(rng.integers(2**62))
    changed, body = _paint_window(window, kind, local, seed, levels)
    if _contrast(changed - window, body) < 0.6 * levels:
        inverse, _ = _paint_window(255 - window, kind, local, seed, levels)
        if _contrast(255 - inverse - window, body) > _contrast(changed - window, body):
            changed = 255 - inverse
    painted, mask = image.copy(), np.zeros(image.shape[:2], dtype=bool)
    painted[rows, cols] = changed.astype(np.uint8)
    mask[rows, cols] = body | (changed != window).any(axis=2)
    return painted, mask


def texture_level(window: FloatImage, radius_px: float) -> float:
    """Standard deviation of the texture in a window ``(H, W, 3)`` of levels, by the median, so that edges count little.

    What changes over longer distances than the radius of the defect is shading, not texture.
    """
    grey = window.mean(axis=2)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), max(1.0, radius_px / 2))
    return float(1.4826 * np.median(np.abs(fine - np.median(fine))))


def part_mask(image: NDArray[np.uint8]) -> BoolMask:
    """Mask ``(H, W)``, bool, of a part on a plain background; never empty.

    The background is what has the colour of the image's border and hangs together with it. Where the border is not of
    one colour, or the whole image is, as on a surface that fills it, everything is part.
    """
    height, width = image.shape[:2]
    shrink = min(1.0, 128 / max(height, width))
    small_wh = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA).astype(np.float32)
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    colour = np.median(border, axis=0)
    like_border = np.abs(small - colour).max(axis=2) <= _BORDER_TOLERANCE
    everything = np.ones((height, width), dtype=bool)
    if (np.abs(border - colour).max(axis=1) <= _BORDER_TOLERANCE).mean() < 0.9:
        return everything
    _, labels = cv2.connectedComponents(like_border.astype(np.uint8))
    edges = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    part = ~np.isin(labels, edges[edges > 0])
    if not 0.03 < part.mean() < 0.97:
        return everything
    return cv2.resize(part.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def _spot_on_part(image: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> Spot:
    """Choose a place on the part; the best of many where none lies wholly on it."""
    part = part_mask(image)
    best, most = None, -1.0
    for attempt in range(_MAX_TRIES):
        # Smaller with each failed try, so that a small part still gets its defect.
        factor = rng.uniform(*SCALES) * 0.95**attempt
        spot = random_spot(rng, (image.shape[0], image.shape[1]), factor * rng.uniform(*radius_range(kind)))
        rows, cols = _square(spot, 1.0)
        share = float(part[rows, cols].mean())
        if share > 0.9:
            return spot
        if share > most:
            best, most = spot, share
    return best  # type: ignore[return-value]


def _square(spot: Spot, num_radii: float, margin_px: float = 0.0) -> tuple[slice, slice]:
    """Rows and columns around a spot, inside the image."""
    reach = num_radii * spot.radius_px + margin_px
    rows, cols = (
        slice(max(0, int(centre - reach)), min(side, int(np.ceil(centre + reach)) + 1))
        for centre, side in zip((spot.y, spot.x), spot.size_hw, strict=True)
    )
    return rows, cols


def _paint_window(window: FloatImage, kind: str, spot: Spot, seed: int, levels: float) -> tuple[FloatImage, BoolMask]:
    """Paint at a given contrast in levels; return whole levels of 0..255 and the defect's body."""
    plate = np.full_like(window, _PLATE_LEVEL)
    on_plate, cover = paint_at(plate, kind, spot, np.random.default_rng(seed))
    body = cover > MASK_COVER
    if not body.any():  # thinner than a pixel
        body = cover >= cover.max()
    # The surface is brought to the plate's brightness, and to the texture that makes the contrast the wanted one.
    step = np.float32(levels / max(_contrast(on_plate - plate, body), 1e-3))
    centre = np.median(window, axis=(0, 1))
    painted, _ = paint_at(_PLATE_LEVEL + (window - centre) / step, kind, spot, np.random.default_rng(seed))
    change = centre + (painted - _PLATE_LEVEL) * step - window
    if np.ptp(window, axis=2).max() <= 2:
        change = np.repeat(change.mean(axis=2, keepdims=True), 3, axis=2)
    touched = dilate(body, MASK_MARGIN_PX)[..., None]
    return np.where(touched, np.clip(np.rint(window + change), 0, 255), window).astype(np.float32), body


def _contrast(change: FloatImage, body: BoolMask) -> float:
    return float(np.sqrt(np.mean(change[body] ** 2)))
