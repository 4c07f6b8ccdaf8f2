# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the report as data URIs: tiles of regions, sheets of many tiles, images with boxes."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from anomalib_ncd.regions.writing import encode_image

TILES_PER_ROW = 20
DATA_START = '<script type="application/json" id="report-data">'


@dataclass(frozen=True)
class TileSheets:
    """Many small tiles, of a side each, in a few pictures, filled row by row; there are at most as many rows."""

    tile_px: int
    tiles_per_row: int
    data_uris: list[str]


def sheets_of_report(file: str | Path) -> TileSheets | None:
    """Sheets of a report that was written before; ``None`` where there is none, or it is another page."""
    if not Path(file).is_file():
        return None
    data = Path(file).read_text(encoding="utf-8").partition(DATA_START)[2].partition("</script>")[0]
    tile = json.loads(data or "{}").get("tile")
    return None if tile is None else TileSheets(tile["px"], tile["perRow"], tile["sheets"])


def jpeg_data_uri(image: np.ndarray, quality: int = 82) -> str:
    """Encode an RGB image ``(H, W, 3)`` uint8 for an ``<img>`` of a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_image(image, '.jpg', quality)).decode('ascii')}"


def tile_sheets(tiles: Iterable[np.ndarray], tile_px: int, quality: int = 72) -> TileSheets:
    """Put square tiles of a side into sheets of 20 by 20; the tiles of one sheet are in memory at a time."""
    tiles, data_uris = iter(tiles), []
    while of_sheet := list(islice(tiles, TILES_PER_ROW**2)):
        num_rows = -(-len(of_sheet) // TILES_PER_ROW)
        sheet = np.full((num_rows * tile_px, TILES_PER_ROW * tile_px, 3), 255, np.uint8)
        for place, tile in enumerate(of_sheet):
            top, left = place // TILES_PER_ROW * tile_px, place % TILES_PER_ROW * tile_px
            sheet[top : top + tile_px, left : left + tile_px] = tile
        data_uris.append(jpeg_data_uri(sheet, quality))
    return TileSheets(tile_px, TILES_PER_ROW, data_uris)
