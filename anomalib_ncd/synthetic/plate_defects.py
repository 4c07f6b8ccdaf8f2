# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Twelve kinds of surface defect, painted into an image together with their exact pixel masks."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_ncd.regions.crops import check_image
from anomalib_ncd.synthetic import shapes
from anomalib_ncd.synthetic.shapes import LIGHT_XY, BoolMask, FloatImage, Spot, blend, lines, shifted

MASK_MARGIN_PX = 2  # a defect's soft edge reaches this far outside its mask; everything farther out is untouched
MASK_COVER = 0.3  # a pixel belongs to a defect's mask where more than this part of it is defect
_MAX_TRIES = 60

Painter = Callable[[FloatImage, Spot, np.random.Generator], tuple[FloatImage, FloatImage]]
"""Takes image, spot and generator; returns the painted image and how much of each pixel is defect (0..1)."""


def paint_defect(
    image: NDArray[np.uint8], kind: str, rng: np.random.Generator, avoid: BoolMask | None = None
) -> tuple[NDArray[np.uint8], BoolMask]:
    """Paint one defect at a random place, size and orientation into a copy of an RGB image ``(H, W, 3)``, ``uint8``.

    Returns it and the defect's mask ``(H, W)``, bool; the image changes only inside the mask dilated by
    ``MASK_MARGIN_PX``. No pixel of ``avoid``, ``(H, W)`` bool, is touched; ``ValueError`` if there is no such place.
    """
    check_kinds([kind], "kind")
    check_image(image)
    painter, (low, high) = _PAINTERS[kind]
    clean = image.astype(np.float32)
    for attempt in range(_MAX_TRIES):
        # Smaller with each failed try, so that a crowded image still gets its defect.
        spot = shapes.random_spot(rng, image.shape[:2], 0.96**attempt * rng.uniform(low, high))
        painted, cover = painter(clean, spot, rng)
        mask = cover > MASK_COVER
        touched = shapes.dilate(mask, MASK_MARGIN_PX)
        if mask.any() and not (avoid is not None and (touched & avoid).any()):
            changed = clean + rng.uniform(0.75, 1.0) * (painted - clean)
            levels = np.where(touched[..., None], np.clip(np.rint(changed), 0, 255), clean)
            return levels.astype(np.uint8), mask
    msg = f"Found no place for a {kind!r} in {_MAX_TRIES} tries; avoid less."
    raise ValueError(msg)


def paint_at(image: FloatImage, kind: str, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Paint one defect at a given spot, as on a plate of grey level 150; see :data:`Painter`.

    The image ``(H, W, 3)`` may have levels beyond 0..255. What is drawn from ``rng`` doesn't depend on it.
    """
    return _PAINTERS[kind][0](image, spot, rng)


def radius_range(kind: str) -> tuple[float, float]:
    """Smallest and largest radius of a kind of defect, as a part of the image's shorter side."""
    return _PAINTERS[kind][1]


def check_kinds(kinds: Sequence[str], argument: str) -> None:
    """Raise ``ValueError`` for unknown or repeated kinds of defect, which came as ``argument``."""
    unknown = [kind for kind in kinds if kind not in DEFECT_KINDS]
    if unknown:
        msg = f"`{argument}` must name known defect kinds, got {unknown}; known are {', '.join(DEFECT_KINDS)}."
        raise ValueError(msg)
    if len(set(kinds)) < len(kinds):
        msg = f"`{argument}` must name each kind once, got {list(kinds)}."
        raise ValueError(msg)


def _paint_scratch(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """One or two straight, tapering grooves: bare metal beside a thin shadow."""
    u = np.linspace(-1, 1, 24)
    bend, paths, widths = rng.uniform(-0.1, 0.1), [], []
    for stroke in range(rng.integers(1, 3)):
        reach, across = rng.uniform(0.6, 1.0), stroke * rng.uniform(0.08, 0.14)
        paths.append(spot.to_image(np.stack([u * reach, bend * u**2 + across], axis=1)))
        widths.append(spot.unit_px * rng.uniform(1.4, 2.4) * (0.35 + 0.65 * np.sqrt(1 - u**2)))
    groove = lines(paths, widths, spot)
    shadow = shifted(groove, 1.2 * spot.unit_px)
    painted = blend(blend(image, (62, 62, 66), 0.75 * shadow), (238, 238, 240), 0.9 * groove)
    return painted, np.maximum(groove, shadow)


def _paint_hole(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A round opening: dark, its far wall lit, with a thin burr."""
    distance = shapes.blob(spot, rng, wobble=0.04)
    dx, dy = spot.pixels()
    lit = np.clip(-(dx * LIGHT_XY[0] + dy * LIGHT_XY[1]), 0, 1)
    inner, outer = shapes.inside(distance, spot), shapes.inside(distance / 1.16, spot)
    wall = 26 + 62 * lit**2
    painted = blend(image, (222, 220, 216), 0.55 * outer * (0.35 + 0.65 * lit))
    return blend(painted, np.stack([wall, wall, wall * 1.06], axis=-1), inner), outer


def _paint_stain(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A dried drop: the surface shows through, and the rim is darker than the middle."""
    distance = shapes.blob(spot, rng, wobble=0.1, aspect=rng.uniform(1.0, 1.5))
    tint = np.array([(0.66, 0.56, 0.42), (0.54, 0.62, 0.74), (0.58, 0.57, 0.56)][rng.integers(3)], dtype=np.float32)
    cover = shapes.inside(distance, spot, soft_px=2 * spot.unit_px)
    cloud = shapes.smooth_noise(rng, spot.size_hw, spot.radius_px / 2)
    strength = cover * (0.42 + 0.2 * cloud + 0.38 * shapes.ring(distance, 0.93, 0.1))
    return image * (1 - strength[..., None] * (1 - tint)), cover


def _paint_crack(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A jagged dark line with side branches."""
    trunk = _jagged(rng, np.array([-1.0, 0.0]), 0.0, 2.0)
    paths = [trunk]
    for _ in range(rng.integers(2, 5)):
        start = trunk[rng.integers(2, len(trunk) - 2)]
        paths.append(_jagged(rng, start, rng.choice([-1, 1]) * rng.uniform(0.5, 1.1), rng.uniform(0.3, 0.7)))
    openings = [rng.uniform(1.8, 2.6), *(rng.uniform(1.0, 1.4) for _ in paths[1:])]  # the trunk's is wider
    widths = [
        spot.unit_px * np.linspace(opening, 0.6, len(path)) for path, opening in zip(paths, openings, strict=True)
    ]
    gap = lines([spot.to_image(path) for path in paths], widths, spot)
    lip = np.clip(shifted(gap, 1.3 * spot.unit_px) - gap, 0, 1)
    return blend(blend(image, (205, 205, 205), 0.4 * lip), (24, 23, 24), np.clip(1.15 * gap, 0, 1)), gap


def _jagged(rng: np.random.Generator, start: NDArray[np.floating], angle: float, length: float) -> NDArray[np.floating]:
    """Walk along a direction with sharp turns; the points are in radii."""
    steps = max(3, round(length * 9))
    turns = angle + rng.uniform(-0.75, 0.75, steps)
    walk = np.stack([np.cos(turns), np.sin(turns)], axis=1) * rng.uniform(0.5, 1.5, (steps, 1)) * length / steps
    return np.concatenate([start[None], start + np.cumsum(walk, axis=0)])


def _paint_dent(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A smooth hollow: the texture stays, only the light changes."""
    distance = shapes.blob(spot, rng, wobble=0.03, aspect=rng.uniform(1.0, 1.5))
    bowl = np.clip(1 - distance**2, 0, None) ** 2
    slope_y, slope_x = np.gradient(bowl, np.float32(1 / spot.radius_px))
    shade = slope_x * LIGHT_XY[0] + slope_y * LIGHT_XY[1]
    painted = image + (44 * shade - 12 * bowl)[..., None]
    return painted, shapes.inside(distance * 1.08, spot)


def _paint_bubble(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A blister, often with a small neighbour: bright dome, highlight towards the light, dark foot."""
    cover = np.zeros(spot.size_hw, dtype=np.float32)
    painted = image
    for size in [1.0, *rng.uniform(0.35, 0.6, rng.integers(0, 3))]:
        turn, reach = rng.uniform(0, 2 * np.pi), 0.0 if size == 1.0 else 1.15 + size
        dx, dy = spot.pixels()
        dx, dy = (dx - reach * np.cos(turn)) / size, (dy - reach * np.sin(turn)) / size
        distance = np.hypot(dx, dy).astype(np.float32)
        dome = np.clip((1 - distance) * spot.radius_px * size + 0.5, 0, 1).astype(np.float32)
        away = np.clip(-(dx * LIGHT_XY[0] + dy * LIGHT_XY[1]), -1, 1)
        gloss = np.exp(-((np.hypot(dx - 0.45 * LIGHT_XY[0], dy - 0.45 * LIGHT_XY[1]) / 0.22) ** 2))
        painted = painted + (dome * (18 - 34 * away - 60 * shapes.ring(distance, 0.92, 0.13)))[..., None]
        painted = blend(painted, (252, 252, 252), (0.95 * dome * gloss).astype(np.float32))
        cover = np.maximum(cover, dome)
    return painted.astype(np.float32), cover


def _paint_rust(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A ragged, speckled patch of several browns."""
    distance = shapes.blob(spot, rng, wobble=0.16)
    coarse = shapes.smooth_noise(rng, spot.size_hw, spot.radius_px / 3)
    fine = shapes.smooth_noise(rng, spot.size_hw, 1.6 * spot.unit_px)
    alpha = np.clip((1.25 - distance + 0.7 * (coarse - 0.5) + 0.7 * (fine - 0.5) - 0.3) * 4, 0, 1)
    brown = np.array([74, 46, 30], dtype=np.float32) + fine[..., None] * np.array([104, 62, 28], dtype=np.float32)
    closed = cv2.morphologyEx(alpha, cv2.MORPH_CLOSE, np.ones((3, 3), dtype=np.uint8))
    return blend(image, brown, 0.85 * alpha), closed.astype(np.float32)


def _paint_fibre(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A curly thread that lies on the surface and throws a soft shadow."""
    steps = 60
    curl = np.interp(np.arange(steps), np.linspace(0, steps, 7), rng.normal(0, 0.22, 7))
    heading = np.cumsum(curl + rng.choice([-1, 1]) * 0.05)
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) * 3.2 / steps
    points = spot.to_image(path - path.mean(axis=0))
    thread = lines([points], [np.full(steps, spot.unit_px * rng.uniform(1.4, 2.1))], spot)
    shadow = cv2.GaussianBlur(shifted(thread, 2.2 * spot.unit_px), (0, 0), 0.8 * spot.unit_px)
    colour = [(46, 62, 104), (118, 50, 52), (236, 232, 220), (52, 48, 44)][rng.integers(4)]
    return blend(blend(image, (50, 50, 54), 0.5 * shadow), colour, thread), np.maximum(thread, 0.8 * shadow)


def _paint_chip(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A break with corners and flat facets, each catching the light differently."""
    corners = int(rng.integers(5, 8))
    turns = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(-0.3, 0.3, corners)
    outline = np.stack([np.cos(turns), np.sin(turns)], axis=1) * rng.uniform(0.6, 1.15, (corners, 1))
    apex = rng.uniform(-0.25, 0.25, 2)
    rough = shapes.smooth_noise(rng, spot.size_hw, 2.5 * spot.unit_px) - 0.5
    painted, cover = image, np.zeros(spot.size_hw, dtype=np.float32)
    for corner in range(corners):
        facet = spot.to_image(np.stack([apex, outline[corner], outline[(corner + 1) % corners]]))
        outward = facet[1:].mean(axis=0) - facet[0]
        facing = float(outward @ np.array(LIGHT_XY)) / max(float(np.linalg.norm(outward)), 1e-6)
        level = 112 - 46 * facing + rng.uniform(-14, 14) + 34 * rough
        alpha = shapes.polygon(facet, spot)
        painted, cover = blend(painted, np.stack([level, level, level * 1.02], axis=-1), alpha), cover + alpha
    cover = np.clip(cover, 0, 1)
    glint = np.clip(cover - shifted(cover, -1.4 * spot.unit_px), 0, 1)
    return blend(painted, (242, 242, 242), 0.8 * glint), cover


def _paint_grid_mark(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """The imprint of a knurled jaw: crossing grooves inside a rectangle."""
    u, v = spot.rotated_pixels()
    height = np.float32(rng.uniform(0.55, 0.9))
    pitch = 2 / rng.integers(5, 8)
    press = np.minimum(1, shapes.smooth_noise(rng, spot.size_hw, spot.radius_px) + 0.6)
    distance = np.maximum(np.abs(u), np.abs(v) / height)
    cover = shapes.inside(distance, spot)
    wave_a = np.cos((u + v) * np.float32(2 * np.pi / pitch / 1.414))
    wave_b = np.cos((u - v) * np.float32(2 * np.pi / pitch / 1.414))
    groove = np.maximum(wave_a, wave_b)
    relief = 46 * np.clip(groove - 0.35, 0, None) / 0.65 - 24 * np.clip(0.1 - groove, 0, None)
    return image - (cover * press * relief * 1.5)[..., None], cover


def _paint_smear(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A wiped film of grease: streaks along one direction that thin out at one end."""
    u, v = spot.rotated_pixels()
    bent = v - np.float32(rng.uniform(-0.15, 0.15)) * u**2
    width = np.float32(rng.uniform(0.26, 0.4))
    rows = rng.random(64).astype(np.float32)
    streaks = np.interp(np.clip(bent / width, -1, 1), np.linspace(-1, 1, 64)[::4], rows[::4]).astype(np.float32)
    ends = np.clip((1 - np.abs(u) + 0.25 * (streaks - 0.5)) * 3, 0, 1) * np.clip(0.75 - 0.35 * u, 0, 1)
    sides = np.clip((1 - np.abs(bent) / width) * np.float32(spot.radius_px * width / 2), 0, 1)
    alpha = ends * sides * (0.35 + 0.65 * streaks)
    film = (96, 92, 82) if rng.random() < 0.5 else (214, 214, 210)
    return blend(image, film, 0.75 * alpha), ends * sides


def _paint_pit_cluster(image: FloatImage, spot: Spot, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """A swarm of small corrosion pits, each with a lit lip."""
    dx, dy = spot.pixels()
    pits = np.zeros(spot.size_hw, dtype=np.float32)
    for _ in range(rng.integers(9, 20)):
        reach, turn = np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        away = np.hypot(dx - reach * np.cos(turn), dy - reach * np.sin(turn)) * spot.radius_px
        pit_px = spot.unit_px * rng.uniform(1.1, 2.7)
        pits = np.maximum(pits, np.clip(pit_px - away + 0.5, 0, 1).astype(np.float32))
    lip = np.clip(shifted(pits, 1.3 * spot.unit_px) - pits, 0, 1)
    return blend(blend(image, (230, 230, 228), 0.6 * lip), (44, 42, 42), 0.9 * pits), np.maximum(pits, lip)


# Painter of each kind, and the range of its radius as a part of the image's shorter side.
_PAINTERS: dict[str, tuple[Painter, tuple[float, float]]] = {
    "scratch": (_paint_scratch, (0.11, 0.2)),
    "hole": (_paint_hole, (0.03, 0.055)),
    "stain": (_paint_stain, (0.07, 0.12)),
    "crack": (_paint_crack, (0.1, 0.17)),
    "dent": (_paint_dent, (0.06, 0.1)),
    "bubble": (_paint_bubble, (0.03, 0.055)),
    "rust": (_paint_rust, (0.06, 0.11)),
    "fibre": (_paint_fibre, (0.09, 0.14)),
    "chip": (_paint_chip, (0.045, 0.08)),
    "grid_mark": (_paint_grid_mark, (0.07, 0.11)),
    "smear": (_paint_smear, (0.11, 0.18)),
    "pit_cluster": (_paint_pit_cluster, (0.05, 0.1)),
}

DEFECT_KINDS: tuple[str, ...] = tuple(_PAINTERS)
"""Names of the defect kinds that can be painted."""
