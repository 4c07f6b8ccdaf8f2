# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest

from anomalib_ncd.data import normal_regions
from anomalib_ncd.data.normal_regions import NormalRegions
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.reading.pairing import MapPairs
from anomalib_ncd.regions.settings import RegionSettings


@pytest.fixture(scope="module")
def table(tiny_run):
    images = list_images(tiny_run.images)
    return RegionTable(images).build(MapPairs(tiny_run.anomaly_maps).pair(images), (0.2, 1.1), RegionSettings())


def test_masks_are_those_of_the_novel_regions(table, tiny_run):
    normal = NormalRegions(list_images(tiny_run.images / "good"), table)
    assert len(normal) == len(table)
    novel = sorted(table.load(row)[1].tobytes() for row in range(len(table)))
    assert sorted(normal[number][1].tobytes() for number in range(len(normal))) == novel
    for number in range(len(normal)):
        pixels, mask = normal[number]
        assert pixels.shape == (*mask.shape, 3)
        assert pixels.dtype == np.uint8


def test_pixels_come_from_normal_images(table, tmp_path):
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((50, 80), 77, dtype=np.uint8))
    normal = NormalRegions(list_images(tmp_path), table)
    assert all((normal[number][0] == 77).all() for number in range(len(normal)))


def test_regions_depend_on_the_seed_alone(table, tiny_run):
    images = list_images(tiny_run.images / "good")
    first, second, other = (NormalRegions(images, table, seed) for seed in (3, 3, 4))
    assert all((first[i][0] == second[i][0]).all() for i in range(len(first)))
    assert first.identity() == second.identity() != other.identity()
    assert any(first[i][0].shape != other[i][0].shape or (first[i][0] != other[i][0]).any() for i in range(len(first)))


def test_there_are_no_more_than_a_stated_number(table, tiny_run, monkeypatch):
    monkeypatch.setattr(normal_regions, "MAX_NORMAL_REGIONS", 5)
    assert len(NormalRegions(list_images(tiny_run.images / "good"), table)) == 5


def test_no_images_give_no_regions(table):
    assert len(NormalRegions([], table)) == 0


def test_images_smaller_than_a_region_are_enlarged(table, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.full((16, 16, 3), 9, dtype=np.uint8))
    normal = NormalRegions(list_images(tmp_path), table)
    assert normal[0][0].shape[:2] == normal[0][1].shape


def test_unreadable_images_are_named(table, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        NormalRegions(list_images(tmp_path), table)[0]


def test_masks_serve_again_where_more_regions_are_asked_for(table, tiny_run):
    images = list_images(tiny_run.images / "good")
    normal = NormalRegions(images, table, num_regions=2 * len(table) + 1)
    assert len(normal) == 2 * len(table) + 1
    assert (normal[0][1] == normal[len(table)][1]).all()
    assert {normal.image_index(number) for number in range(len(normal))} == set(range(len(images)))


def test_a_region_lies_in_the_image_that_is_told(table, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((50, 80), 20 * number, dtype=np.uint8))
    normal = NormalRegions(list_images(tmp_path), table)
    for number in range(len(normal)):
        assert (normal[number][0] == 20 * normal.image_index(number)).all()
