# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.synthetic.plate_defects import DEFECT_KINDS, MASK_MARGIN_PX
from anomalib_ncd.synthetic.plate_images import draw_part, make_image, simulate_anomaly_map
from anomalib_ncd.synthetic.shapes import dilate


@pytest.mark.parametrize("size", [64, 100, 256])
def test_part_has_the_size_asked_for(size):
    part = draw_part(np.random.default_rng(0), size)
    assert part.shape == (size, size, 3)
    assert part.dtype == np.uint8


def test_parts_vary_little_but_do_vary():
    first, second = (draw_part(np.random.default_rng(seed)).astype(float) for seed in (0, 1))
    assert 1 < np.abs(first - second)[40:-40, 40:-40].mean() < 25


def test_same_seed_same_part():
    first, second = (draw_part(np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("draw", [draw_part, lambda rng, size: make_image([], rng, size)])
def test_small_images_are_refused(draw):
    with pytest.raises(ValueError, match="`size` must be at least 64 pixels, got 63"):
        draw(np.random.default_rng(0), 63)


def test_image_without_defects_is_the_part():
    image, masks = make_image([], np.random.default_rng(4), size=64)
    np.testing.assert_array_equal(image, draw_part(np.random.default_rng(4), size=64))
    assert masks == {}


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_image_differs_from_the_part_only_at_the_mask(kind):
    part = draw_part(np.random.default_rng(7), size=128)
    image, masks = make_image([kind], np.random.default_rng(7), size=128)
    changed = (image != part).any(axis=2)
    assert not (changed & ~dilate(masks[kind], MASK_MARGIN_PX)).any()
    assert changed[masks[kind]].mean() > 0.6


@pytest.mark.parametrize("size", [64, 256])
def test_two_defects_keep_apart(size):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        pair = rng.choice(DEFECT_KINDS, 2, replace=False).tolist()
        _, masks = make_image(pair, rng, size=size)
        assert list(masks) == pair
        first, second = masks.values()
        assert first.any()
        assert second.any()
        assert not (dilate(first, 3) & second).any()


def test_unknown_and_repeated_kinds_are_refused():
    with pytest.raises(ValueError, match="known are scratch"):
        make_image(["spot"], np.random.default_rng(0))
    with pytest.raises(ValueError, match="each kind once"):
        make_image(["dent", "dent"], np.random.default_rng(0))


@pytest.fixture
def square_mask():
    mask = np.zeros((128, 128), dtype=bool)
    mask[50:70, 30:60] = True
    return mask


@pytest.mark.parametrize("size_hw", [(128, 128), (64, 64), (256, 192)])
def test_map_is_high_on_the_defect(square_mask, size_hw):
    rows, cols = (slice(a * n // 128, b * n // 128) for (a, b), n in zip(((55, 65), (35, 55)), size_hw, strict=True))
    for seed in range(10):
        anomaly_map = simulate_anomaly_map(square_mask, np.random.default_rng(seed), size_hw)
        assert anomaly_map.shape == size_hw
        assert anomaly_map.dtype == np.float32
        assert anomaly_map.min() >= 0
        assert anomaly_map.max() <= 1
        assert anomaly_map[rows, cols].mean() > 0.4
        assert np.median(anomaly_map) < 0.2


def test_map_of_a_good_image_is_low():
    maps = [simulate_anomaly_map(np.zeros((64, 64), bool), np.random.default_rng(seed), (64, 64)) for seed in range(30)]
    peaks = [anomaly_map.max() for anomaly_map in maps]
    assert max(peaks) < 0.55
    assert sum(peak > 0.2 for peak in peaks) in range(1, 16)  # a false alarm now and then


def test_map_is_weaker_at_the_border():
    def peak(row):
        mask = np.zeros((128, 128), dtype=bool)
        mask[row : row + 6, 60:66] = True
        return np.mean([simulate_anomaly_map(mask, np.random.default_rng(s), (128, 128)).max() for s in range(5)])

    assert peak(0) < 0.85 * peak(60)


def test_one_pixel_defect_survives_a_smaller_map():
    mask = np.zeros((256, 256), dtype=bool)
    mask[100, 100] = True
    anomaly_map = simulate_anomaly_map(mask, np.random.default_rng(0), (64, 64))
    assert anomaly_map[25, 25] > 0.4


def test_map_needs_a_plain_mask():
    with pytest.raises(ValueError, match=r"`mask` must have shape \(H, W\), got \(1, 8, 8\)"):
        simulate_anomaly_map(np.zeros((1, 8, 8), dtype=bool), np.random.default_rng(0))
