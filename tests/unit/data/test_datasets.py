# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as F

from anomalib_ncd.data import datasets
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datasets import (
    BLUR_KERNELS,
    BalancedSampler,
    EvalImages,
    NormalRegions,
    TrainRegions,
    TrainView,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_sharpness,
    blur,
    jitter_colour,
    posterize,
    resize_short_side,
    to_view,
)
from anomalib_ncd.data.images import list_base
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.reading.maps import MapPairs
from anomalib_ncd.regions.settings import PAPER_REGIONS, RegionSettings
from anomalib_ncd.regions.views import eval_view, whole_view


@pytest.fixture
def photo():
    """Smooth colours with edges and some noise."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(20, 236, (8, 8, 3)).astype(np.uint8), (90, 90), interpolation=cv2.INTER_CUBIC)
    smooth[30:50, 20:70] = (200, 60, 30)
    return np.clip(smooth + rng.normal(0, 5, smooth.shape), 0, 255).astype(np.uint8)


def eval_tensors(image, mask, image_size=224):
    return map(torch.from_numpy, eval_view(image, mask, image_size))


def as_tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def as_image(tensor):
    return tensor.permute(1, 2, 0).numpy()


def mean_difference(one, other):
    return np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean()


def coordinates(height, width):
    """An image whose red is its row and whose green is its column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("size_hw", [(256, 256), (20, 20), (300, 200), (120, 500)])
@pytest.mark.parametrize("image_size", [224, 64])
def test_eval_views_have_one_shape(size_hw, image_size):
    image, mask = np.full((*size_hw, 3), 77, np.uint8), np.ones(size_hw, bool)
    view, view_mask = eval_tensors(image, mask, image_size)
    assert view.shape == (3, image_size, image_size)
    assert view.dtype == torch.uint8
    assert view_mask.shape == (1, image_size, image_size)
    assert view_mask.dtype == torch.float32
    assert (view == 77).all()
    np.testing.assert_allclose(view_mask, 1, rtol=1e-6)


def test_the_eval_view_is_the_crop_at_16_16():
    image = coordinates(256, 256)
    mask = np.zeros((256, 256), bool)
    mask[16, 16] = mask[239, 239] = True
    view, view_mask = eval_tensors(image, mask)
    np.testing.assert_array_equal(as_image(view), image[16:240, 16:240])
    assert view_mask.sum() == 2
    assert view_mask[0, 0, 0] == view_mask[0, 223, 223] == 1


def test_eval_views_do_not_change(photo):
    mask = np.zeros((90, 90), bool)
    first, second = (tuple(eval_tensors(photo, mask)) for _ in range(2))
    assert torch.equal(first[0], second[0])


@pytest.mark.parametrize("size_hw", [(40, 40), (60, 47), (47, 90), (300, 260), (600, 420)])
def test_regions_are_resized_as_torchvision_resizes_pillows_images(size_hw):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8), rng.random(size_hw) < 0.5
    resized, soft_mask = resize_short_side(image, mask, 256)
    np.testing.assert_array_equal(resized, np.asarray(F.resize(Image.fromarray(image), 256)))
    np.testing.assert_array_equal(soft_mask, np.asarray(F.resize(Image.fromarray(mask.astype(np.float32)), 256)))
    assert soft_mask.dtype == np.float32


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.4, 1.8])
@pytest.mark.parametrize(
    ("own", "oracle"),
    [
        (adjust_brightness, F.adjust_brightness),
        (adjust_contrast, F.adjust_contrast),
        (adjust_saturation, F.adjust_saturation),
        (adjust_sharpness, F.adjust_sharpness),
    ],
)
def test_colours_change_like_torchvisions(photo, own, oracle, factor):
    changed = own(photo, factor)
    assert changed.dtype == np.uint8
    assert mean_difference(changed, as_image(oracle(as_tensor(photo), factor))) < 1
    if factor == 1:
        np.testing.assert_array_equal(changed, photo)


def test_sharpness_leaves_the_border_alone(photo):
    changed = adjust_sharpness(photo, 0.2)
    np.testing.assert_array_equal(changed[0], photo[0])
    np.testing.assert_array_equal(changed[:, -1], photo[:, -1])


@pytest.mark.parametrize("kernel_size", BLUR_KERNELS)
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_torchvisions(photo, kernel_size, sigma):
    expected = as_image(F.gaussian_blur(as_tensor(photo), [kernel_size, kernel_size], [sigma, sigma]))
    blurred = blur(photo, kernel_size, sigma)
    assert mean_difference(blurred, expected) < 0.5
    assert np.abs(blurred.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("bits", [5, 6, 7, 8])
def test_posterize_is_torchvisions(photo, bits):
    np.testing.assert_array_equal(posterize(photo, bits), as_image(F.posterize(as_tensor(photo), bits)))


def test_jitter_stays_in_its_ranges(photo):
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(jitter_colour(photo, rng, [(1, 1)] * 3), photo)
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = [jitter_colour(grey, rng, [(0.6, 1.4), (1, 1), (1, 1)])[0, 0, 0] for _ in range(300)]
    assert 60 <= min(values) < 65
    assert 135 < max(values) <= 140


def test_jitter_comes_in_any_order(photo):
    images = [jitter_colour(photo, np.random.default_rng(i), [(1.4, 1.4), (0.6, 0.6), (1.8, 1.8)]) for i in range(30)]
    assert len({image.tobytes() for image in images}) > 2


def test_the_mask_moves_with_the_image(monkeypatch):
    # Without the changes of colour an image that shows its mask must still show it.
    for name in ("jitter_colour", "adjust_sharpness", "blur", "posterize"):
        monkeypatch.setattr(f"anomalib_ncd.data.datasets.{name}", lambda image, *_: image)
    mask = np.zeros((50, 50), bool)
    mask[5:20, 8:40] = mask[30:33, 30:48] = True
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    torch.manual_seed(0)
    seen = set()
    for _ in range(40):
        view, view_mask = TrainView()(image, mask)
        assert view.shape == (3, 224, 224)
        np.testing.assert_allclose(view[0] / 255, view_mask[0], atol=0.01)
        seen.add(view.numpy().tobytes())
    assert len(seen) > 35


def test_all_flips_and_turns_appear(monkeypatch):
    for name in ("jitter_colour", "adjust_sharpness", "blur", "posterize"):
        monkeypatch.setattr(f"anomalib_ncd.data.datasets.{name}", lambda image, *_: image)
    image = np.zeros((50, 50, 3), np.uint8)
    image[:25, :25], image[:25, 25:], image[25:, :25] = 10, 20, 30
    torch.manual_seed(0)
    views = [TrainView(64)(image, np.zeros((50, 50), bool))[0] for _ in range(150)]
    corners = {tuple(view[0, [2, 2, -3, -3], [2, -3, 2, -3]].tolist()) for view in views}
    assert len(corners) == 8


def test_a_seed_gives_the_same_views_again(photo):
    mask = np.zeros((90, 90), bool)
    mask[20:40] = True

    def draw():
        torch.manual_seed(7)
        return [TrainView(64)(photo, mask) for _ in range(3)]

    for (one, one_mask), (other, other_mask) in zip(draw(), draw(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one_mask, other_mask)
    torch.manual_seed(7)
    first, second = TrainView(64)(photo, mask), TrainView(64)(photo, mask)
    assert not torch.equal(first[0], second[0])


def test_views_spread_like_those_of_a_torchvision_pipeline(photo):
    image_size = 64
    reference = transforms.Compose(
        [
            transforms.Resize(int(image_size / 0.875)),
            transforms.RandomCrop(image_size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.ColorJitter(brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.6, 1.8)),
            transforms.RandomChoice([transforms.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)]),
            transforms.Lambda(lambda view: F.adjust_sharpness(view, float(torch.empty(1).uniform_(0.2, 2.0)))),
            transforms.RandomChoice([transforms.GaussianBlur(size, (0.1, 2.0)) for size in BLUR_KERNELS]),
            transforms.RandomChoice([transforms.RandomPosterize(bits, p=1) for bits in (5, 6, 7, 8)]),
        ],
    )
    torch.manual_seed(0)
    picture = Image.fromarray(photo)
    expected = np.stack([np.asarray(reference(picture), np.float64) for _ in range(600)])
    mask = np.zeros((90, 90), bool)
    views = np.stack([as_image(TrainView(image_size)(photo, mask)[0]).astype(np.float64) for _ in range(600)])
    np.testing.assert_allclose(views.mean(axis=(0, 1, 2)), expected.mean(axis=(0, 1, 2)), atol=5)
    np.testing.assert_allclose(views.std(axis=(1, 2)).mean(axis=0), expected.std(axis=(1, 2)).mean(axis=0), rtol=0.07)
    np.testing.assert_allclose(views.mean(axis=(1, 2)).std(axis=0), expected.mean(axis=(1, 2)).std(axis=0), rtol=0.2)
    detail, expected_detail = (np.abs(np.diff(stack, axis=1)).mean() for stack in (views, expected))
    np.testing.assert_allclose(detail, expected_detail, rtol=0.15)


def test_to_view_puts_channels_first():
    view, mask = to_view(coordinates(4, 5), np.eye(4, 5, dtype=np.float32))
    assert view.shape == (3, 4, 5)
    assert view[0, 3, 1] == 3
    assert view[1, 3, 1] == 1
    assert mask.shape == (1, 4, 5)


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


@pytest.mark.parametrize("settings", [RegionSettings(), PAPER_REGIONS], ids=["elements", "mebin"])
def test_where_novel_regions_leave_a_strip_normal_ones_do_too(settings, tmp_path):
    anomaly_map = np.zeros((40, 200), np.float32)
    anomaly_map[28:36, 70:130] = 1  # the box ends at the lower edge, and leaves the image at the upper one
    for name in ("novel", "normal", "maps"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "novel" / "0.png"), np.full((40, 200), 150, np.uint8))
    cv2.imwrite(str(tmp_path / "normal" / "0.png"), np.full((80, 400), 77, np.uint8))
    np.save(tmp_path / "maps" / "0.npy", anomaly_map)
    images = list_images(tmp_path / "novel")
    table = RegionTable(images).build(MapPairs(tmp_path / "maps").pair(images), (0.0, 1.0), settings)
    novel, novel_mask = table.load(0)
    pixels, mask = NormalRegions(list_images(tmp_path / "normal"), table)[0]
    assert (mask == novel_mask).all()
    outside = len(novel) - 40
    assert outside > 0
    if settings.method == "mebin":
        assert not novel[:outside].any()
        assert not pixels[:outside].any()
    assert (novel[outside:] == 150).all()
    assert (pixels[outside:] == 77).all()
    assert pixels[mask].min() == 77


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
