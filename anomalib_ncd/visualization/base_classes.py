# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A picture of the base classes that a model learns from, as it sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anomalib_ncd.data.datasets import TrainRegions
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.visualization.gallery import TILES_PER_ROW, captioned_rows, region_tile


def draw_base_classes(
    regions: TrainRegions,
    class_names: Sequence[str],
    tiles_per_class: int = TILES_PER_ROW,
) -> np.ndarray:
    """Draw one row of regions per base class, two of three without the outline of their masks, ``(h, w, 3)`` uint8."""
    num_base = int(regions.is_base.sum())
    labels = regions.labels[:num_base].numpy()
    rows = []
    for class_id, name in enumerate(class_names):
        members = np.flatnonzero(labels == class_id)
        tiles = []
        for number, member in enumerate(members[:tiles_per_class]):
            image, mask = regions.load(int(member))
            tiles.append(region_tile(image, mask if number % 3 == 0 else np.zeros_like(mask)))
        rows.append(captioned_rows(f"{name}: {len(members)} base regions", tiles, min(tiles_per_class, TILES_PER_ROW)))
    return np.concatenate(rows)


def write_base_classes(file: str | Path, regions: TrainRegions, class_names: Sequence[str]) -> None:
    """Write the picture as PNG.

    Args:
        file: Target file.
        regions: Training set.
        class_names: Names of the base classes.
    """
    write_image(file, draw_base_classes(regions, class_names))
