# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.synthetic.shapes import Spot, blend, blob, dilate, inside, lines, polygon, shifted, smooth_noise


@pytest.fixture
def spot():
    return Spot(x=32, y=32, radius_px=12, angle=0.0, size_hw=(64, 64))


def test_dilate_by_hand():
    mask = np.zeros((9, 9), dtype=bool)
    mask[4, 4] = True
    assert dilate(mask, 0).sum() == 1
    assert dilate(mask, 2)[2:7, 2:7].all()
    assert dilate(mask, 2).sum() == 25


def test_blob_without_wobble_is_a_disc(spot):
    rows, cols = np.indices((64, 64))
    expected = np.hypot(cols - 32, rows - 32) / 12
    np.testing.assert_allclose(blob(spot, np.random.default_rng(0), wobble=0.0), expected, atol=1e-5)


def test_blob_follows_orientation():
    tall = Spot(x=32, y=32, radius_px=12, angle=np.pi / 2, size_hw=(64, 64))
    cover = inside(blob(tall, np.random.default_rng(0), wobble=0.0, aspect=2.0), tall) > 0.5
    assert cover.any(axis=1).sum() == pytest.approx(24, abs=2)
    assert cover.any(axis=0).sum() == pytest.approx(12, abs=2)


def test_to_image_inverts_rotated_pixels():
    turned = Spot(x=20, y=30, radius_px=10, angle=0.7, size_hw=(64, 64))
    u, v = turned.rotated_pixels()
    np.testing.assert_allclose(turned.to_image(np.array([[u[5, 9], v[5, 9]]])), [[9, 5]], atol=1e-4)


def test_line_covers_its_area(spot):
    cover = lines([np.array([[10.0, 32.0], [50.0, 32.0]])], [np.array([3.0])], spot)
    assert cover.sum() == pytest.approx(40 * 3, rel=0.15)
    assert cover[:28].max() == 0


def test_polygon_covers_its_area(spot):
    cover = polygon(np.array([[10.0, 10.0], [50.0, 10.0], [50.0, 30.0], [10.0, 30.0]]), spot)
    assert cover.sum() == pytest.approx(40 * 20, rel=0.05)


def test_shadow_falls_to_the_bottom_right():
    cover = np.zeros((20, 20), dtype=np.float32)
    cover[10, 10] = 1
    row, col = np.unravel_index(shifted(cover, 5.0).argmax(), cover.shape)
    assert (row, col) == (14, 13)


def test_blend_leaves_uncovered_pixels():
    image = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    alpha = np.array([[0.0, 1.0], [0.0, 0.0]])
    painted = blend(image, (9, 9, 9), alpha)
    np.testing.assert_array_equal(painted[1], image[1])
    np.testing.assert_array_equal(painted[0, 1], [9, 9, 9])


@pytest.mark.parametrize("cell_px", [0.5, 3.0, 200.0])
def test_noise_stays_in_range(cell_px):
    noise = smooth_noise(np.random.default_rng(0), (40, 30), cell_px)
    assert noise.shape == (40, 30)
    assert noise.dtype == np.float32
    assert 0 <= noise.min() <= noise.max() <= 1
