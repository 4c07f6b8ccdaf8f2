# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions of known-normal images, which the detector's false alarms look like."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import ImageFile, digest_of_images

MAX_NORMAL_REGIONS = 300
"""Most normal regions that are cut, so that the work doesn't grow with the number of normal images."""


class NormalRegions:
    """Regions cut out of normal images, with the shapes of the novel regions.

    Each takes the mask and the relative size of a novel region, drawn at random, and lies anywhere in a normal image.
    So a mask tells nothing about the label, and only what it shows does. There are ``num_regions``, masks serving
    several times if there are fewer; by default as many as novel regions, 300 at most.
    """

    def __init__(
        self, images: Sequence[ImageFile], table: RegionTable, seed: int = 0, num_regions: int | None = None
    ) -> None:
        self.images, self.table, self.seed = list(images), table, seed
        count = min(len(table), MAX_NORMAL_REGIONS) if num_regions is None else num_regions
        order = np.random.default_rng([seed, len(table)]).permutation(len(table))
        self._masks = np.resize(order, count if self.images and len(table) else 0)

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels ``(h, w, 3)`` uint8 and mask ``(h, w)`` bool, cut out of the file at each call."""
        row = int(self._masks[number])
        _, mask = self.table.load(row)
        index, rng = self._draw(number)
        image = read_image(self.images[index].path, self.table.settings.bit_depth)
        left, top, right, bottom = self.table.rows[row].box_xyxy
        height, width = self.table.sizes_hw[self.table.image_of[row]]
        size_hw = _scaled((bottom - top) / height, image.shape[0]), _scaled((right - left) / width, image.shape[1])
        corner = [rng.integers(whole - part + 1) for whole, part in zip(image.shape, size_hw, strict=False)]
        cut = image[corner[0] : corner[0] + size_hw[0], corner[1] : corner[1] + size_hw[1]]
        return cv2.resize(cut, mask.shape[::-1], interpolation=cv2.INTER_LINEAR), mask

    def image_index(self, number: int) -> int:
        """The image that a region lies in."""
        return self._draw(number)[0]

    def identity(self) -> str:
        """All that the regions depend on besides the table."""
        return f"{self.seed} {len(self)} {digest_of_images(self.images)}"

    def _draw(self, number: int) -> tuple[int, np.random.Generator]:
        """Image of a region, and the generator that draws its place; both depend on the seed and its number alone."""
        rng = np.random.default_rng([self.seed, number])
        return int(rng.integers(len(self.images))), rng


def _scaled(share: float, whole: int) -> int:
    """A share of a side in pixels, two at least and all of it at most."""
    return min(max(round(share * whole), 2), whole)
