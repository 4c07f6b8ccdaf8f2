# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What anomaly maps and their images tell about a detector, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

CELLS = 24
"""Images and maps are compared on a grid of so many cells a side."""
CELL_PX = 8
NUM_HIGHEST = 6  # cells, a hundredth of a map
MAX_CELLS = 3000  # of all images, to which a cell is compared
NUM_ALIKE = 4
FEWEST_IMAGES = 10  # of five images, noise passes for a detector once in five times

NAN = float("nan")


def map_cells(anomaly_map: np.ndarray) -> np.ndarray:
    """Mean score of each cell of a map ``(H, W)``, as ``(24, 24)`` float32."""
    interpolation = cv2.INTER_AREA if min(anomaly_map.shape) >= CELLS else cv2.INTER_LINEAR
    return cv2.resize(anomaly_map.astype(np.float32), (CELLS, CELLS), interpolation=interpolation)


def image_cells(image: np.ndarray) -> np.ndarray:
    """Colour, edges and span of grey of each cell of an image ``(H, W, 3)`` uint8, as ``(24, 24, 7)`` float32."""
    side = CELLS * CELL_PX
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small.mean(axis=2)
    edges = [np.abs(cv2.Sobel(grey, cv2.CV_32F, *axes, ksize=3)) for axes in ((1, 0), (0, 1))]
    blocks = np.dstack([small, *edges, grey]).reshape(CELLS, CELL_PX, CELLS, CELL_PX, 6)
    return np.dstack(
        [blocks[..., :5].mean(axis=(1, 3)), blocks[..., 5].max(axis=(1, 3)), blocks[..., 5].min(axis=(1, 3))]
    )


def own_image_share(images: np.ndarray, maps: np.ndarray) -> float:
    """How often an image is more unusual where its own map is high than where another image's map is; ties half.

    A cell is as unusual as it is far from the most alike cells of other images. Maps that don't follow what is in their
    images, those of other images or noise, come to a half. Takes :func:`image_cells` ``(N, 24, 24, 7)`` and
    :func:`map_cells` ``(N, 24, 24)``; NaN for fewer than ten images.
    """
    count = len(images)
    if count < FEWEST_IMAGES:
        return NAN
    ranks = _unusual(images).argsort(axis=1).argsort(axis=1).astype(np.float64)
    under = ranks @ _highest(maps).T.astype(np.float64)  # (image, map)
    own = np.diag(under)[:, None]
    wins = (own > under) + (own == under) / 2
    return float((wins.sum() - count / 2) / (count * (count - 1)))


def same_place_share(maps: np.ndarray, others: np.ndarray | None = None) -> float:
    """How much of the highest hundredth of a map ``(24, 24)`` lies where that of another does, or of the other maps.

    Mean over all pairs, 0.01 by chance; NaN without pairs. Maps that are constant have no highest part.
    """
    first = _highest(maps).astype(np.float64)
    second = first if others is None else _highest(others).astype(np.float64)
    pairs = first @ second.T / NUM_HIGHEST
    wanted = ~np.eye(len(first), dtype=bool) if others is None else np.ones(pairs.shape, dtype=bool)
    return float(pairs[wanted].mean()) if wanted.any() else NAN


def peak_height(maps: Sequence[np.ndarray]) -> float:
    """Part of the span of a typical map ``(H, W)`` that lies above its median, 0 to 1: small where high means normal.

    Example:
        >>> peak_height([np.array([[0, 0, 0, 1]]), np.array([[0, 0, 0, 5]])])
        1.0
    """
    heights = []
    for anomaly_map in maps:
        lowest, median, highest = (float(value) for value in np.quantile(anomaly_map, [0, 0.5, 1]))
        heights.append((highest - median) / (highest - lowest) if highest > lowest else 0.0)
    return float(np.median(heights)) if heights else NAN


def detector_separation(peaks: Sequence[float], normal_peaks: Sequence[float]) -> float:
    """How surely a map's peak is above that of a normal image: an AUROC; NaN where there is none of either.

    Example:
        >>> detector_separation([3, 5], normal_peaks=[1, 4])
        0.75
    """
    if not len(peaks) or not len(normal_peaks):
        return NAN
    return float(roc_auc_score([1] * len(peaks) + [0] * len(normal_peaks), [*peaks, *normal_peaks]))


def _highest(maps: np.ndarray) -> np.ndarray:
    """The highest cells of each map, ``(N, 576)`` bool; none of a constant one."""
    rows = maps.reshape(len(maps), -1)
    found = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(found, rows.argsort(axis=1, kind="stable")[:, -NUM_HIGHEST:], values=True, axis=1)
    return found & (rows.max(axis=1) > rows.min(axis=1))[:, None]


def _unusual(images: np.ndarray) -> np.ndarray:
    """Distance of each cell to the fourth of those of other images that are most alike, ``(N, 576)`` float32."""
    cells = images.reshape(-1, images.shape[-1])
    cells = (cells / (cells.std(axis=0) + 1e-6)).astype(np.float32)
    image_of = np.repeat(np.arange(len(images)), CELLS * CELLS)
    chosen = np.random.default_rng(0).permutation(len(cells))[:MAX_CELLS]
    bank, squares = cells[chosen], (cells[chosen] ** 2).sum(axis=1)
    found = []
    for number, own in enumerate(cells.reshape(len(images), CELLS * CELLS, -1)):
        distances = (own**2).sum(axis=1)[:, None] + squares - 2 * own @ bank.T
        foreign = np.delete(distances, np.flatnonzero(image_of[chosen] == number), axis=1)
        found.append(np.partition(foreign, min(NUM_ALIKE, foreign.shape[1]) - 1, axis=1)[:, NUM_ALIKE - 1])
    return np.stack(found)
