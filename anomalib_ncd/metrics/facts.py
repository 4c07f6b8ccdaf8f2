# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What is known of a run without labels: numbers, each with what it means and what to do where it is off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    """Tell what is known, by name; numbers that are unknown or NaN are left out.

    Example:
        >>> tell_facts({"images_with_region": 0.5})["images_with_region"]["text"]
        '50% of the images have a region.'
    """
    known = [(fact, values.get(fact.name, math.nan)) for fact in FACTS]
    return {fact.name: fact.tell(value) for fact, value in known if not math.isnan(value)}
