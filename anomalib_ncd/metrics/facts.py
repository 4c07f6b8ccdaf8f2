# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What is known of a run without labels: numbers, each with what it means and what to do where it is off."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from anomalib_ncd.settings import MIN_NORMAL_IMAGES

NOT_DRAWN = -1
MAX_REGIONS = 2000  # of which a resample is drawn; more change no figure and take time

CELLS = 24  # a side of the grid on which images and maps are compared
CELL_PX = 8
NUM_HIGHEST = 6  # cells, a hundredth of a map
MAX_CELLS = 3000  # of all images, to which a cell is compared
NUM_ALIKE = 4
FEWEST_IMAGES = 10  # of five images, noise passes for a detector once in five times

NAN = float("nan")


@dataclass(frozen=True)
class Fact:
    """How a number of ``metrics.json`` is told: ``{value}`` in the sentence stands for it, in per cent.

    It is off below the limit, or above it if ``low_is_fine``; then there is advice.
    """

    name: str
    sentence: str
    limit: float
    advice: str
    low_is_fine: bool = False

    def tell(self, value: float) -> dict[str, Any]:
        """The number as plain data: ``value``, ``text`` and ``advice``, empty where there is nothing to do."""
        is_off = value > self.limit if self.low_is_fine else value < self.limit
        text = self.sentence.format(value=f"{value:.0%}")
        return {"value": value, "text": text, "advice": self.advice if is_off else ""}


FACTS = (
    Fact(
        "images_with_region",
        "{value} of the images have a region.",
        2 / 3,
        "Where nothing was found though the images aren't good, try another --regions.method, or set --score_range.",
    ),
    Fact(
        "own_image",
        "In {value} of all comparisons, an image is more unusual where its own map is high than where the map of "
        "another image is (50% by chance).",
        0.65,
        "The maps don't follow what is in their images. Look at some: do they belong to these images? Are they noise?",
    ),
    Fact(
        "peak_height",
        "Of the span of a typical map, {value} lies above its median.",
        0.4,
        "Most of a map is nearly as high as its peak: maps are constant, or inverted, with low scores for defects.",
    ),
    Fact(
        "same_place",
        "{value} of the highest hundredth of a map lies where the map of another image is highest (1% by chance).",
        0.5,
        "The detector fires at one place in all images: at an edge or the background. Mask it, or align the images.",
        low_is_fine=True,
    ),
    Fact(
        "same_place_as_normal",
        "{value} of the highest hundredth of a map lies where the map of a normal image is highest (1% by chance).",
        0.5,
        "The detector fires where it does in normal images. What it marks there is no defect.",
        low_is_fine=True,
    ),
    Fact(
        "detector_separation",
        "The peak of a map is above that of a normal image in {value} of all pairs (50% by chance).",
        0.65,
        "The detector hardly tells these images from normal ones; a better one comes before any clustering.",
    ),
    Fact(
        "good_images",
        f"{{value}} of the {MIN_NORMAL_IMAGES} good images that a comparison takes are given.",
        1.0,
        "So few tell too little of what is normal. Give more of them, of different parts.",
    ),
    Fact(
        "cluster_agreement",
        "Where a fifth of the regions is left out, clusters stay the same to {value} (0% by chance).",
        0.5,
        "The data don't have this number of clusters. Try fewer or more classes, or give more images.",
    ),
    Fact(
        "head_agreement",
        "The heads of the network agree to {value} (0% by chance).",
        0.5,
        "The result depends on the random start. Train for more epochs, or with fewer classes.",
    ),
)


def tell_facts(values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Tell what is known, by name; numbers that are unknown or NaN are left out."""
    known = [(fact, values.get(fact.name, math.nan)) for fact in FACTS]
    return {fact.name: fact.tell(value) for fact, value in known if not math.isnan(value)}


def pairwise_agreement(partitions: np.ndarray) -> float:
    """Mean adjusted Rand index of all pairs of partitions ``(P, N)`` int: up to 1, 0 for chance, NaN without pairs.

    Below 0 a sample is not part of a partition; a pair is compared over the samples that both have. That clusterings of
    resamples agree tells how real clusters are: Ben-Hur, Elisseeff and Guyon (PSB 2002).
    """
    partitions = np.asarray(partitions)
    if partitions.ndim != 2:
        msg = f"`partitions` must have shape (P, N), got {partitions.shape}; stack one row per partition."
        raise ValueError(msg)
    known = []
    for one, other in combinations(partitions, 2):
        shared = (one >= 0) & (other >= 0)
        if shared.sum() > 1:
            known.append(adjusted_rand_score(one[shared], other[shared]))
    return float(np.mean(known)) if known else NAN


def resampled_clusterings(
    features: np.ndarray, cluster: Callable[[np.ndarray], np.ndarray], num_resamples: int = 5, share: float = 0.8
) -> np.ndarray:
    """Cluster random parts of features ``(N, D)``: ``(num_resamples, N)`` int, -1 where a row is not in the part.

    Each part has a ``share`` of the rows, drawn without putting back; ``cluster`` gives ``(n,)`` int of ``(n, D)``.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        msg = f"`features` must have shape (N, D), got {features.shape}."
        raise ValueError(msg)
    if not 0 < share <= 1:
        msg = f"`share` must be in (0, 1], got {share}."
        raise ValueError(msg)
    rng = np.random.default_rng(0)
    size = round(share * min(len(features), MAX_REGIONS))
    found = np.full((num_resamples, len(features)), NOT_DRAWN)
    for number in range(num_resamples if size else 0):
        part = rng.permutation(len(features))[:size]
        found[number, part] = cluster(features[part])
    return found


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
    images come to a half. Takes :func:`image_cells` ``(N, 24, 24, 7)`` and :func:`map_cells` ``(N, 24, 24)``; NaN for
    fewer than ten images.
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
    """Part of the span of a typical map ``(H, W)`` that lies above its median, 0 to 1: small if high means normal."""
    heights = []
    for anomaly_map in maps:
        lowest, median, highest = (float(value) for value in np.quantile(anomaly_map, [0, 0.5, 1]))
        heights.append((highest - median) / (highest - lowest) if highest > lowest else 0.0)
    return float(np.median(heights)) if heights else NAN


def detector_separation(peaks: Sequence[float], normal_peaks: Sequence[float]) -> float:
    """How surely a map's peak is above that of a normal image: an AUROC; NaN where there is none of either."""
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
