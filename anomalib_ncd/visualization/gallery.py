# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A picture of what was found: the surest regions of each class, with their masks outlined."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datasets import TrainRegions
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.classes.prediction import first_slots
from anomalib_ncd.visualization.drawing import DARK_RGB, load_font, scaled, stretch_contrast

TILE_PX = 128
TILES_PER_ROW = 8
GAP_PX = 8
CAPTION_PX = 34
FONT_PX = 15
OUTLINE_RGB = (255, 140, 0)
INK_RGB = (40, 40, 40)


def draw_gallery(
    batches: Sequence[NcdBatch],
    class_names: Sequence[str],
    table: RegionTable,
    tiles_per_class: int = TILES_PER_ROW,
    only: str | None = None,
) -> np.ndarray:
    """Draw rows of regions per class, ``(h, w, 3)`` uint8; classes of one name share a row, or `only` one is shown.

    Most regions a class are `tiles_per_class`, the surest first; more than eight take further rows, none no row.
    """
    classes, scores = _in_table_order(batches, table)
    slots = np.array(first_slots(class_names))
    rows = []
    for class_id, name in enumerate(class_names):
        members = np.flatnonzero((classes >= 0) & (slots[classes] == class_id))
        if not len(members) or only not in {None, name}:
            continue
        surest = members[np.argsort(-scores[members], kind="stable")][:tiles_per_class]
        tiles = [region_tile(*table.load(int(index))) for index in surest]
        rows.append(captioned_rows(f"{name}: {len(members)} regions", tiles, min(tiles_per_class, TILES_PER_ROW)))
    return np.concatenate(rows or [captioned_rows("no regions", [], min(tiles_per_class, TILES_PER_ROW))])


def region_tile(image: np.ndarray, mask: np.ndarray, size: int = TILE_PX, margin: int = 255) -> np.ndarray:
    """A region as a tile ``(size, size, 3)`` uint8 on a grey `margin`, stretched in contrast, its mask outlined."""
    resized = stretch_contrast(scaled(image, size / max(image.shape[:2])))
    height, width = resized.shape[:2]
    resized_mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    for colour, reach in ((DARK_RGB, 7), (OUTLINE_RGB, 5)):  # around the mask; shows on dark, light and orange
        resized[cv2.dilate(resized_mask, np.ones((reach, reach), np.uint8)) > resized_mask] = colour
    tile = np.full((size, size, 3), margin, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    tile[top : top + height, left : left + width] = resized
    return tile


def _in_table_order(batches: Sequence[NcdBatch], table: RegionTable) -> tuple[np.ndarray, np.ndarray]:
    """Predicted class and confidence of each region of the table; class -1 where there is no prediction."""
    classes, scores = np.full(len(table), -1), np.zeros(len(table))
    for batch in batches:
        if batch.region_pred_class_id is None or batch.region_pred_class_score is None:
            continue
        rows = table_rows(batch, table)
        classes[rows] = batch.region_pred_class_id.cpu().numpy()
        scores[rows] = batch.region_pred_class_score.float().cpu().numpy()
    return classes, scores


def table_rows(batch: NcdBatch, table: RegionTable) -> list[int]:
    """Row of the table that each region of a batch stands in; images may come in any order."""
    index_of = {str(record.path): index for index, record in enumerate(table.images)}
    return [row for path in batch.image_path for row in table.rows_of_image[index_of[path]]]


def captioned_rows(caption: str, tiles: Sequence[np.ndarray], tiles_per_row: int) -> np.ndarray:
    """Draw a caption over rows of tiles ``(128, 128, 3)`` uint8, on white."""
    width = tiles_per_row * (TILE_PX + GAP_PX) + GAP_PX
    num_rows = -(-len(tiles) // tiles_per_row)
    picture = Image.new("RGB", (width, CAPTION_PX + num_rows * (TILE_PX + GAP_PX)), "white")
    ImageDraw.Draw(picture).text((GAP_PX, CAPTION_PX // 2), caption, INK_RGB, load_font(FONT_PX, caption), "lm")
    rows = np.asarray(picture).copy()
    for number, tile in enumerate(tiles):
        top = CAPTION_PX + number // tiles_per_row * (TILE_PX + GAP_PX)
        left = GAP_PX + number % tiles_per_row * (TILE_PX + GAP_PX)
        rows[top : top + TILE_PX, left : left + TILE_PX] = tile
    return rows


def draw_base_classes(regions: TrainRegions, class_names: Sequence[str]) -> np.ndarray:
    """Draw one row of regions per base class, two of three without the outline of their masks, ``(h, w, 3)`` uint8."""
    labels = regions.labels[regions.is_base].numpy()  # those of base and normal regions, which come first
    rows = []
    for class_id, name in enumerate(class_names):
        members = np.flatnonzero(labels == class_id).tolist()
        crops = [regions.load(member) for member in members[:TILES_PER_ROW]]
        tiles = [region_tile(image, mask & (number % 3 == 0)) for number, (image, mask) in enumerate(crops)]
        rows.append(captioned_rows(f"{name}: {len(members)} base regions", tiles, TILES_PER_ROW))
    return np.concatenate(rows)
