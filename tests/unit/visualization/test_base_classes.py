# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest

from anomalib_ncd import NcdDataModule
from anomalib_ncd.visualization.base_classes import draw_base_classes, write_base_classes
from anomalib_ncd.visualization.gallery import CAPTION_PX, GAP_PX, OUTLINE_RGB, TILE_PX


@pytest.fixture(scope="module")
def datamodule(tiny_run):
    return NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, base=tiny_run.base)


def test_each_base_class_has_a_row_and_some_outlines(datamodule):
    regions = datamodule.train_regions()
    picture = draw_base_classes(regions, datamodule.base_class_names, tiles_per_class=3)
    row, tile = CAPTION_PX + TILE_PX + GAP_PX, TILE_PX + GAP_PX
    assert picture.shape == (2 * row, 3 * tile + GAP_PX, 3)
    outlined = [
        [
            (picture[top : top + row, left : left + tile] == OUTLINE_RGB).all(axis=2).any()
            for left in range(0, 3 * tile, tile)
        ]
        for top in (0, row)
    ]
    assert np.array(outlined).tolist() == [[True, False, False]] * 2


def test_the_picture_is_written_in_its_colours(datamodule, tmp_path):
    write_base_classes(tmp_path / "base.png", datamodule.train_regions(), datamodule.base_class_names)
    expected = draw_base_classes(datamodule.train_regions(), datamodule.base_class_names)
    written = cv2.cvtColor(cv2.imread(str(tmp_path / "base.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(written, expected)
