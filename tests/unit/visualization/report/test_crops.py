# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import base64

import cv2
import numpy as np
import pytest

from anomalib_ncd.visualization.report.crops import TileSheets, jpeg_data_uri, sheets_of_report, tile_sheets


def decode(uri):
    prefix, _, encoded = uri.partition(",")
    assert prefix == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_colours_survive():
    image = np.full((20, 30, 3), (200, 40, 90), np.uint8)
    np.testing.assert_allclose(decode(jpeg_data_uri(image)).astype(int), image, atol=4)


@pytest.mark.parametrize(("count", "heights"), [(0, []), (1, [8]), (21, [16]), (400, [160]), (401, [160, 8])])
def test_tiles_lie_row_by_row(count, heights):
    tiles = [np.full((8, 8, 3), number % 256, np.uint8) for number in range(count)]
    sheets = tile_sheets(iter(tiles), 8, quality=100)
    pictures = [decode(uri) for uri in sheets.data_uris]
    assert [picture.shape for picture in pictures] == [(height, 160, 3) for height in heights]
    for number in range(count):
        place, per_row = number % 400, sheets.tiles_per_row
        cut = pictures[number // 400][place // per_row * 8 :, place % per_row * 8 :][:8, :8]
        np.testing.assert_allclose(cut.astype(int), number % 256, atol=3)


def test_sheets_are_found_in_a_report(tmp_path):
    assert sheets_of_report(tmp_path / "none.html") is None
    (tmp_path / "other.html").write_text("<p>another page</p>")
    assert sheets_of_report(tmp_path / "other.html") is None
    (tmp_path / "report.html").write_text(
        '<p></p><script type="application/json" id="report-data">'
        '{"x":[],"tile":{"px":64,"perRow":20,"sheets":["data:a","data:b"]}}</script><script>1</script>'
    )
    assert sheets_of_report(tmp_path / "report.html") == TileSheets(64, 20, ["data:a", "data:b"])
