# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch

from anomalib_ncd.data import datasets
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datasets import BalancedSampler, EvalImages, NormalRegions, TrainRegions
from anomalib_ncd.data.images import list_base
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.reading.maps import MapPairs
from anomalib_ncd.regions.settings import PAPER_REGIONS, RegionSettings
from anomalib_ncd.regions.views import eval_view, whole_view


@pytest.fixture(scope="module")
def table_of_all(tiny_run):
    images = list_images(tiny_run.images)
    return RegionTable(images).build(MapPairs(tiny_run.anomaly_maps).pair(images), (0.2, 1.1), PAPER_REGIONS)


def test_masks_are_those_of_the_novel_regions(table_of_all, tiny_run):
    normal = NormalRegions(list_images(tiny_run.images / "good"), table_of_all)
    assert len(normal) == len(table_of_all)
    novel = sorted(table_of_all.load(row)[1].tobytes() for row in range(len(table_of_all)))
    assert sorted(normal[number][1].tobytes() for number in range(len(normal))) == novel
    for number in range(len(normal)):
        pixels, mask = normal[number]
        assert pixels.shape == (*mask.shape, 3)
        assert pixels.dtype == np.uint8


def test_pixels_come_from_normal_images(table_of_all, tmp_path):
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((50, 80), 77, dtype=np.uint8))
    normal = NormalRegions(list_images(tmp_path), table_of_all)
    assert all((normal[number][0] == 77).all() for number in range(len(normal)))


def test_regions_depend_on_the_seed_alone(table_of_all, tiny_run):
    images = list_images(tiny_run.images / "good")
    first, second, other = (NormalRegions(images, table_of_all, seed) for seed in (3, 3, 4))
    assert all((first[i][0] == second[i][0]).all() for i in range(len(first)))
    assert first.identity() == second.identity() != other.identity()
    assert any(first[i][0].shape != other[i][0].shape or (first[i][0] != other[i][0]).any() for i in range(len(first)))


def test_there_are_no_more_than_a_stated_number(table_of_all, tiny_run, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_NORMAL_REGIONS", 5)
    assert len(NormalRegions(list_images(tiny_run.images / "good"), table_of_all)) == 5


def test_no_images_give_no_regions(table_of_all):
    assert len(NormalRegions([], table_of_all)) == 0


def test_images_smaller_than_a_region_are_enlarged(table_of_all, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.full((16, 16, 3), 9, dtype=np.uint8))
    normal = NormalRegions(list_images(tmp_path), table_of_all)
    assert normal[0][0].shape[:2] == normal[0][1].shape


def test_unreadable_images_are_named(table_of_all, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        NormalRegions(list_images(tmp_path), table_of_all)[0]


def test_masks_serve_again_where_more_regions_are_asked_for(table_of_all, tiny_run):
    images = list_images(tiny_run.images / "good")
    normal = NormalRegions(images, table_of_all, num_regions=2 * len(table_of_all) + 1)
    assert len(normal) == 2 * len(table_of_all) + 1
    assert (normal[0][1] == normal[len(table_of_all)][1]).all()
    assert {normal.image_index(number) for number in range(len(normal))} == set(range(len(images)))


def test_a_region_lies_in_the_image_that_is_told(table_of_all, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((50, 80), 20 * number, dtype=np.uint8))
    normal = NormalRegions(list_images(tmp_path), table_of_all)
    for number in range(len(normal)):
        assert (normal[number][0] == 20 * normal.image_index(number)).all()


@pytest.fixture(scope="module")
def table(tiny_run):
    images = list_images(tiny_run.images)
    maps = MapPairs(tiny_run.anomaly_maps).pair(images)
    return RegionTable(images).build(maps, (0.2, 1.1), PAPER_REGIONS)


@pytest.fixture(scope="module")
def base(tiny_run):
    return list_base(tiny_run.base)[0]


def test_base_regions_come_first(table, base):
    regions = TrainRegions(table, base)
    num_base = len(base)
    assert len(regions) == num_base + len(table)
    assert regions.is_base.tolist() == [True] * num_base + [False] * len(table)
    assert regions.labels.tolist() == [record.class_name == "base_square" for record in base] + [0] * len(table)
    assert set(regions.labels[:num_base].tolist()) == {0, 1}
    assert (regions.scores[:num_base] == 1).all()
    np.testing.assert_allclose(regions.scores[num_base:], [row.score for row in table.rows], rtol=1e-6)


def test_novel_regions_are_those_of_the_table(table, base):
    regions = TrainRegions(table, base)
    image, mask = regions.load(len(base) + 3)
    np.testing.assert_array_equal(image, table.load(3)[0])
    np.testing.assert_array_equal(mask, table.load(3)[1])


def test_base_images_are_whole(table, base):
    assert TrainRegions(table, base).load(0)[0].shape == (64, 64, 3)


@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_items_hold_several_views(table, base, num_views):
    regions = TrainRegions(table, base, image_size=64)
    torch.manual_seed(0)
    assert regions[0].image.shape[0] == 2
    item = regions.with_views(len(base), num_views)
    assert item.image.shape == (num_views, 1, 3, 64, 64)
    assert item.image.dtype == torch.uint8
    assert item.mask.shape == (num_views, 1, 1, 64, 64)
    assert item.region_index.tolist() == [len(base)]
    assert item.is_base.tolist() == [False]
    assert item.label.tolist() == [0]
    if num_views > 1:
        assert not torch.equal(item.image[0], item.image[1])


def test_without_base_all_is_novel(table):
    regions = TrainRegions(table)
    assert len(regions) == len(table)
    assert not regions.is_base.any()


def test_an_item_is_an_image_with_all_its_regions(table):
    images = EvalImages(table, class_ids=list(range(18)), whole_images=True)
    assert len(images) == 18
    assert EvalImages(table)[0].whole_image is None
    for index in (0, 7, 17):
        item = images[index]
        rows = table.rows_of_image[index]
        assert item.image_path == [str(table.images[index].path)]
        assert item.image_size.tolist() == [[64, 64]]
        assert item.image.shape == (len(rows), 3, 224, 224)
        assert item.region_mask.shape == (len(rows), 1, 224, 224)
        assert item.region_image_index.tolist() == [0] * len(rows)
        assert item.region_box_xyxy.tolist() == [list(table.rows[row].box_xyxy) for row in rows]
        assert item.region_area.tolist() == [table.rows[row].area for row in rows]
        assert item.class_id.tolist() == [index]
        assert item.region_class_id.tolist() == [index] * len(rows)
        assert (item.image[0].numpy() == eval_view(*table.load(rows[0]))[0]).all()
        pixels = read_image(table.images[index].path)
        assert torch.equal(item.whole_image, torch.from_numpy(whole_view(pixels))[None])


def test_an_image_may_have_no_region(tiny_run):
    images = list_images(tiny_run.images)
    maps = MapPairs(tiny_run.anomaly_maps).pair(images)
    table = RegionTable(images).build(maps, (0, 3), RegionSettings(method="threshold", threshold=0.6))
    [first, *_] = table.empty_images
    item = EvalImages(table, class_ids=list(range(18)), image_size=32)[first]
    assert item.image.shape == (0, 3, 32, 32)
    assert item.image.dtype == torch.uint8
    assert item.region_mask.shape == (0, 1, 32, 32)
    assert item.region_box_xyxy.shape == (0, 4)
    assert item.region_area.dtype == torch.long
    whole = NcdBatch.collate([EvalImages(table, class_ids=list(range(18)), image_size=32)[i] for i in range(18)])
    assert len(whole.image) == len(table)
    assert first not in whole.region_image_index


def test_without_labels_there_are_no_class_ids(table):
    item = EvalImages(table, image_size=64)[0]
    assert item.class_id is None
    assert item.region_class_id is None
    assert item.image.shape[-1] == 64


@pytest.mark.parametrize("with_base", [True, False])
def test_normal_regions_are_labelled_as_the_first_novel_class(table, base, tiny_run, with_base):
    normal = NormalRegions(list_images(tiny_run.images / "good"), table)
    records = base if with_base else []
    regions = TrainRegions(table, records, normal=normal)
    num_base = len(records)
    num_labelled = num_base + len(normal)
    assert regions.num_base == num_base
    assert regions.is_base.tolist() == [True] * num_labelled + [False] * len(table)
    assert set(regions.labels[num_base:num_labelled].tolist()) == {2 if with_base else 0}
    assert (regions.scores[:num_labelled] == 1).all()
    np.testing.assert_array_equal(regions.load(num_base)[0], normal[0][0])
    np.testing.assert_array_equal(regions.load(num_labelled)[0], table.load(0)[0])
    assert regions.fingerprint() != TrainRegions(table, records).fingerprint()
    other = NormalRegions(list_images(tiny_run.images / "good"), table, seed=1)
    assert regions.fingerprint() != TrainRegions(table, records, normal=other).fingerprint()


def test_nothing_is_said_of_normal_regions_where_there_are_none(table, capsys):
    TrainRegions(table)
    assert "normal regions" not in capsys.readouterr().err


def test_an_image_without_regions_is_an_item_like_all_others(table, monkeypatch):
    monkeypatch.setattr(table, "rows_of_image", [[]] * len(table.images))
    item = EvalImages(table, class_ids=[0] * len(table.images))[0]
    assert item.image.shape == (0, 3, 224, 224)
    assert item.region_mask.shape == (0, 1, 224, 224)
    assert item.region_box_xyxy.shape == (0, 4)
    assert item.region_area.dtype == item.region_class_id.dtype == torch.long
    assert NcdBatch.collate([item, item]).region_image_index.shape == (0,)


@pytest.mark.parametrize("num_base", [3, 100, 900])
def test_base_and_novel_are_drawn_half_and_half(num_base):
    is_base = torch.arange(1000) < num_base
    drawn = torch.tensor([index for epoch in range(4) for index in _epoch(BalancedSampler(is_base), epoch)])
    assert len(drawn) == 4000
    assert is_base[drawn].float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_all_of_a_kind_are_equally_likely():
    is_base = torch.tensor([True] * 2 + [False] * 8)
    counts = torch.zeros(10)
    for epoch in range(2000):
        counts += torch.bincount(torch.tensor(_epoch(BalancedSampler(is_base), epoch)), minlength=10)
    shares = counts / counts.sum()
    torch.testing.assert_close(shares, torch.tensor([0.25] * 2 + [0.0625] * 8), atol=0.01, rtol=0)


@pytest.mark.parametrize("value", [True, False])
def test_one_kind_alone_is_drawn_evenly(value):
    is_base = torch.full((50,), value)
    drawn = _epoch(BalancedSampler(is_base), 0)
    assert len(drawn) == 50
    assert set(drawn) <= set(range(50))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_one_sequence(world_size):
    is_base = torch.arange(42) < 20
    parts = [_epoch(BalancedSampler(is_base, rank, world_size, seed=5), 3) for rank in range(world_size)]
    assert {len(part) for part in parts} == {42 // world_size}
    together = [index for step in zip(*parts, strict=True) for index in step]
    assert together == _epoch(BalancedSampler(is_base, seed=5), 3)


def test_epochs_and_seeds_differ_and_repeat():
    is_base = torch.arange(60) < 30
    first = _epoch(BalancedSampler(is_base), 0)
    assert first == _epoch(BalancedSampler(is_base), 0)
    assert first != _epoch(BalancedSampler(is_base), 1)
    assert first != _epoch(BalancedSampler(is_base, seed=1), 0)


def test_more_processes_than_regions_still_draw():
    sampler = BalancedSampler(torch.tensor([False]), rank=1, world_size=2)
    assert len(sampler) == 1
    assert list(sampler) == [0]


def _epoch(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)
