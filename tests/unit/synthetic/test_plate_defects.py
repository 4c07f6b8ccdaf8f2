# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.synthetic.plate_defects import DEFECT_KINDS, MASK_MARGIN_PX, check_kinds, paint_defect
from anomalib_ncd.synthetic.shapes import dilate


@pytest.fixture
def plate():
    return np.full((96, 96, 3), 150, dtype=np.uint8)


def test_there_are_twelve_kinds():
    assert len(set(DEFECT_KINDS)) == 12
    assert DEFECT_KINDS[:5] == ("scratch", "hole", "stain", "crack", "dent")


@pytest.mark.parametrize("kind", DEFECT_KINDS)
@pytest.mark.parametrize("size", [64, 128, 512])
def test_every_kind_leaves_a_mask(kind, size):
    surface = np.full((size, size, 3), 150, dtype=np.uint8)
    painted, mask = paint_defect(surface, kind, np.random.default_rng(1))
    assert painted.shape == surface.shape
    assert painted.dtype == np.uint8
    assert mask.shape == (size, size)
    assert mask.dtype == bool
    assert 6 <= mask.sum() < 0.2 * size**2


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_masks_are_exact(plate, kind):
    for seed in range(4):
        painted, mask = paint_defect(plate, kind, np.random.default_rng(seed))
        changed = (painted != plate).any(axis=2)
        assert not (changed & ~dilate(mask, MASK_MARGIN_PX)).any()
        assert changed[mask].mean() > 0.6


def test_image_given_is_not_changed(plate):
    paint_defect(plate, "hole", np.random.default_rng(0))
    assert (plate == 150).all()


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_same_seed_same_defect(plate, kind):
    first, second = (paint_defect(plate, kind, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_rectangular_image():
    painted, mask = paint_defect(np.full((64, 160, 3), 150, dtype=np.uint8), "crack", np.random.default_rng(0))
    assert painted.shape == (64, 160, 3)
    assert mask.shape == (64, 160)


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_avoided_pixels_are_not_touched(plate, kind):
    avoid = np.zeros((96, 96), dtype=bool)
    avoid[:, :48] = True
    painted, mask = paint_defect(plate, kind, np.random.default_rng(2), avoid=avoid)
    assert mask.any()
    assert not (mask & avoid).any()
    assert (painted[avoid] == 150).all()


def test_no_place_is_an_error(plate):
    with pytest.raises(ValueError, match="Found no place for a 'hole'"):
        paint_defect(plate, "hole", np.random.default_rng(0), avoid=np.ones((96, 96), dtype=bool))


def test_unknown_kind_lists_the_known(plate):
    with pytest.raises(ValueError, match=r"`kind` must name known .*\['spot'\].*scratch, hole"):
        paint_defect(plate, "spot", np.random.default_rng(0))


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32)])
def test_image_must_be_rgb_bytes(image):
    with pytest.raises(ValueError, match=r"`image` must have shape \(H, W, 3\) and be uint8"):
        paint_defect(image, "hole", np.random.default_rng(0))


def test_repeated_kinds_are_refused():
    with pytest.raises(ValueError, match="`kinds` must name each kind once"):
        check_kinds(["hole", "hole"], "kinds")
