# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch

from anomalib_ncd import NcdDataModule
from anomalib_ncd.regions.settings import PAPER_REGIONS
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.visualization.drawing import DARK_RGB
from anomalib_ncd.visualization.gallery import (
    CAPTION_PX,
    GAP_PX,
    OUTLINE_RGB,
    TILE_PX,
    TILES_PER_ROW,
    draw_base_classes,
    draw_gallery,
    region_tile,
)

ROW_PX = CAPTION_PX + TILE_PX + GAP_PX


@pytest.fixture(scope="module")
def table(tiny_run):
    return NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, regions=PAPER_REGIONS).region_table()


@pytest.fixture
def batches(tiny_run):
    """Predictions: classes 0, 1 and 2 by turns, the surer the later."""
    module = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, regions=PAPER_REGIONS, eval_batch_size=5)
    batches, number = [], 0
    for batch in module.test_dataloader():
        count = len(batch.region_area)
        index = torch.arange(number, number + count)
        number += count
        batches.append(batch.update(region_pred_class_id=index % 3, region_pred_class_score=0.2 + index / 100))
    return batches


def read(file):
    return cv2.imread(str(file))[..., ::-1]


def tile_at(picture, row, column):
    top, left = row * ROW_PX + CAPTION_PX, GAP_PX + column * (TILE_PX + GAP_PX)
    return picture[top : top + TILE_PX, left : left + TILE_PX]


def test_every_class_has_a_row_with_its_surest_regions(table, batches, tmp_path):
    write_image(tmp_path / "g.png", draw_gallery(batches, ["a", "b", "c"], table, tiles_per_class=4))
    picture = read(tmp_path / "g.png")
    assert picture.shape == (3 * ROW_PX, 4 * (TILE_PX + GAP_PX) + GAP_PX, 3)
    for class_id in range(3):
        members = [index for index in range(len(table)) if index % 3 == class_id][::-1]
        for column in range(4):
            expected = region_tile(*table.load(members[column]))
            np.testing.assert_array_equal(tile_at(picture, class_id, column), expected)
        assert (picture[class_id * ROW_PX : class_id * ROW_PX + CAPTION_PX] < 128).any()


def test_classes_of_one_name_share_a_row(table, batches, tmp_path):
    write_image(tmp_path / "g.png", draw_gallery(batches, ["a", "b", "a"], table, tiles_per_class=4))
    picture = read(tmp_path / "g.png")
    assert picture.shape[0] == 2 * ROW_PX
    members = [index for index in range(len(table)) if index % 3 != 1][::-1]
    for column in range(4):
        np.testing.assert_array_equal(tile_at(picture, 0, column), region_tile(*table.load(members[column])))


def test_captions_know_more_letters_than_ascii(table, batches):
    captions = [draw_gallery(batches, ["a", "b", name], table, only=name)[:CAPTION_PX] for name in ("ö", "ж", "?")]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (captions[i] != captions[j]).any()


def test_the_order_of_batches_does_not_matter(table, batches, tmp_path):
    write_image(tmp_path / "a.png", draw_gallery(batches, ["a", "b", "c"], table))
    write_image(tmp_path / "b.png", draw_gallery(batches[::-1], ["a", "b", "c"], table))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), read(tmp_path / "b.png"))


def test_classes_without_regions_have_no_row(table, batches):
    picture = draw_gallery(batches, ["a", "b", "c"], table)
    np.testing.assert_array_equal(draw_gallery(batches, ["a", "b", "c", "nothing"], table), picture)


def test_without_any_region_there_is_one_caption(table):
    picture = draw_gallery([], ["a", "b"], table)
    assert picture.shape == (CAPTION_PX, TILES_PER_ROW * (TILE_PX + GAP_PX) + GAP_PX, 3)
    assert (picture < 128).any()


def test_batches_without_predictions_are_left_out(table, batches, tmp_path):
    for batch in batches[1:]:
        batch.update(region_pred_class_id=None)
    write_image(tmp_path / "g.png", draw_gallery(batches, ["a", "b", "c"], table))
    picture = read(tmp_path / "g.png")
    assert not (tile_at(picture, 0, 1) == 255).all()
    assert (tile_at(picture, 0, 7) == 255).all()


@pytest.mark.parametrize("size_hw", [(20, 20), (300, 300), (30, 90), (400, 100), (2, 300)])
def test_tiles_are_square(size_hw):
    image, mask = np.full((*size_hw, 3), 50, np.uint8), np.zeros(size_hw, bool)
    tile = region_tile(image, mask)
    assert tile.shape == (TILE_PX, TILE_PX, 3)
    assert (tile[(TILE_PX - 1) // 2, TILE_PX // 2] == 50).all()
    if size_hw[0] != size_hw[1]:
        assert (tile[0, 0] == 255).all()
        assert (tile[-1, -1] == 255).all()


def test_the_margin_of_a_tile_can_be_grey():
    tile = region_tile(np.full((30, 90, 3), 50, np.uint8), np.zeros((30, 90), bool), 90, 150)
    assert (tile[0] == 150).all()
    assert (tile[45] == 50).all()


def test_masks_are_outlined_not_covered():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    tile = region_tile(np.full((64, 64, 3), 50, np.uint8), mask)
    assert tuple(tile[31, 31]) == tuple(tile[97, 97]) == OUTLINE_RGB
    assert tuple(tile[29, 64]) == tuple(tile[64, 98]) == DARK_RGB
    assert (tile[32:96, 32:96] == 50).all()
    assert tuple(tile[5, 5]) == (50, 50, 50)


def test_tiles_leave_the_region_as_it_was():
    image, mask = np.zeros((TILE_PX, TILE_PX, 3), np.uint8), np.ones((TILE_PX, TILE_PX), bool)
    region_tile(image, mask)
    assert (image == 0).all()


def test_one_class_alone_takes_as_many_rows_as_it_needs(table, batches):
    members = [index for index in range(len(table)) if index % 3 == 1][::-1]
    picture = draw_gallery(batches, ["a", "b", "c"], table, tiles_per_class=100, only="b")
    num_rows = -(-len(members) // 8)
    assert picture.shape == (CAPTION_PX + num_rows * (TILE_PX + GAP_PX), 8 * (TILE_PX + GAP_PX) + GAP_PX, 3)
    last = len(members) - 1
    top, left = CAPTION_PX + last // 8 * (TILE_PX + GAP_PX), GAP_PX + last % 8 * (TILE_PX + GAP_PX)
    tile = picture[top : top + TILE_PX, left : left + TILE_PX]
    np.testing.assert_array_equal(tile, region_tile(*table.load(members[-1])))


def test_more_than_a_row_of_tiles_breaks_lines(table, batches):
    merged = ["a", "a", "a"]
    picture = draw_gallery(batches, merged, table, tiles_per_class=len(table))
    assert picture.shape[0] == CAPTION_PX + -(-len(table) // 8) * (TILE_PX + GAP_PX)


@pytest.fixture(scope="module")
def datamodule(tiny_run):
    return NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, base=tiny_run.base)


def test_each_base_class_has_a_row_and_some_outlines(datamodule):
    regions = datamodule.train_regions()
    picture = draw_base_classes(regions, datamodule.base_class_names)
    row, tile = CAPTION_PX + TILE_PX + GAP_PX, TILE_PX + GAP_PX
    assert picture.shape == (2 * row, 8 * tile + GAP_PX, 3)
    outlined = [
        [
            (picture[top : top + row, left : left + tile] == OUTLINE_RGB).all(axis=2).any()
            for left in range(0, 3 * tile, tile)
        ]
        for top in (0, row)
    ]
    assert np.array(outlined).tolist() == [[True, False, False]] * 2
