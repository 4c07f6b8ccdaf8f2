# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What is said of an image and its regions, as plain data: the same for runs, models and artefacts."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RegionResult:
    """Class of a region.

    Attributes:
        box_xyxy: Box in image pixels, half-open; may leave the image.
        area: Mask pixels inside.
        score: Largest anomaly score inside, 0 to 1 over the score range.
        class_id: Slot of the most probable class.
        class_name: Its name.
        confidence: Its probability, 0 to 1.
        is_unknown: Whether the region is unlike all of those that the classes were discovered in.
        probabilities: Probability of each slot.
        neighbour_similarity: Cosine to the nearest region of the run, -1 to 1; ``None`` where left out.
        mask: Anomalous pixels ``(h, w)`` bool inside the box, black outside the image; ``None`` where left out.
        feature: Mask-guided feature ``(D,)`` float32; ``None`` where left out.
    """

    box_xyxy: tuple[float, float, float, float]
    area: int
    score: float
    class_id: int
    class_name: str
    confidence: float
    is_unknown: bool
    probabilities: tuple[float, ...]
    neighbour_similarity: float | None = field(default=None, compare=False)
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)
    feature: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_dict(self, *, masks: bool = False) -> dict[str, Any]:
        """Turn into what JSON can hold, with masks as :func:`run_lengths` if wanted; the feature is left out."""
        values: dict[str, Any] = {
            "box_xyxy": list(self.box_xyxy),
            "area": self.area,
            "score": round(self.score, 6),
            "class": self.class_name,
            "class_id": self.class_id,
            "confidence": round(self.confidence, 6),
            "unknown": self.is_unknown,
            "probabilities": [round(value, 6) for value in self.probabilities],
        }
        if self.neighbour_similarity is not None:
            values["neighbour_similarity"] = round(self.neighbour_similarity, 6)
        if masks and self.mask is not None:
            values["mask"] = {"size_hw": list(self.mask.shape), "run_lengths": run_lengths(self.mask)}
        return values


@dataclass(frozen=True)
class ImageResult:
    """Class of an image, or why there is none.

    Attributes:
        image: Path of the image; ``None`` for an array.
        size_hw: Height and width in pixels; ``None`` where it could not be read.
        class_id: Slot of the most probable class after region merging; ``None`` where there is no region and no slot
            for *normal*.
        class_name: Its name; ``""`` where there is none.
        confidence: Its probability, 0 to 1. Without a region it is 1 for *normal*, else 0.
        is_normal: Whether the part is good: its class is the *normal* slot and it is not unknown, or nothing was found
            in it, that is, no region has a mask.
        is_unknown: Whether unknown regions make up most of the image's weight in region merging.
        classes: Names of all classes of the image, that of the merged regions first; several where regions that count
            are of different classes, see :mod:`~anomalib_ncd.regions.classes.prediction`.
        score: Largest anomaly score of its regions, 0 to 1 over the score range.
        probabilities: Probability of each slot.
        regions: The regions, largest first.
        error: What is wrong with the image; all else is empty then.
    """

    image: str | None
    size_hw: tuple[int, int] | None = None
    class_id: int | None = None
    class_name: str = ""
    confidence: float = 0.0
    is_normal: bool = False
    is_unknown: bool = False
    classes: tuple[str, ...] = ()
    score: float = 0.0
    probabilities: tuple[float, ...] = ()
    regions: tuple[RegionResult, ...] = ()
    error: str | None = None

    def to_dict(self, *, masks: bool = False) -> dict[str, Any]:
        """Turn into what JSON can hold, with masks of regions as :func:`run_lengths` if wanted."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        return {
            "image": self.image,
            "size_hw": None if self.size_hw is None else list(self.size_hw),
            "class": self.class_name,
            "class_id": self.class_id,
            "confidence": round(self.confidence, 6),
            "normal": self.is_normal,
            "unknown": self.is_unknown,
            "classes": list(self.classes),
            "score": round(self.score, 6),
            "probabilities": [round(value, 6) for value in self.probabilities],
            "regions": [region.to_dict(masks=masks) for region in self.regions],
            "error": None,
        }

    def to_json(self, *, masks: bool = False) -> str:
        """Turn into one line of JSON; arguments as :meth:`to_dict`."""
        return json.dumps(self.to_dict(masks=masks), ensure_ascii=False)


def run_lengths(mask: np.ndarray) -> list[int]:
    """Describe a mask by the lengths of its runs, row by row, starting with a run of ``False`` that may be 0 long."""
    flat = np.asarray(mask, dtype=bool).ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    return np.diff([0, *edges, flat.size]).tolist()
