# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.synthetic.painted_defects import CONTRAST_LEVELS, paint_on_surface, part_mask, texture_level
from anomalib_ncd.synthetic.plate_defects import DEFECT_KINDS


def surface(level=(60, 60, 60), noise=4.0, size_hw=(160, 120), seed=0):
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, noise, (*size_hw, 1))
    return np.clip(np.asarray(level) + grain, 0, 255).astype(np.uint8)


def paint(image, kind="crack", seed=0):
    return paint_on_surface(image, kind, np.random.default_rng(seed))


def contrast_of(image, painted, mask):
    return float(np.sqrt(np.mean((painted[mask].astype(float) - image[mask]) ** 2)))


@pytest.mark.parametrize("kind", DEFECT_KINDS)
@pytest.mark.parametrize("level", [(12, 12, 12), (60, 60, 60), (245, 245, 245), (150, 40, 30)])
def test_masks_are_exact_and_defects_visible(kind, level):
    image = surface(level)
    before = image.copy()
    painted, mask = paint(image, kind, seed=3)
    changed = (painted != image).any(axis=2)
    assert not (changed & ~mask).any()
    assert changed[mask].mean() > 0.75
    assert 6 <= mask.sum() < 0.35 * mask.size
    assert contrast_of(image, painted, mask) > 5
    assert (image == before).all()


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_grey_stays_grey(kind):
    painted, _ = paint(surface(), kind)
    assert (np.ptp(painted, axis=2) == 0).all()


def test_colour_is_kept_on_coloured_surfaces():
    painted, mask = paint(surface((150, 140, 120), noise=10), "rust", seed=1)
    red, _, blue = painted[mask].astype(float).mean(axis=0)
    assert red - blue > 30


@pytest.mark.parametrize("size_hw", [(64, 64), (64, 300), (700, 400)])
def test_size_goes_with_the_image(size_hw):
    areas = [paint(surface(size_hw=size_hw), "stain", seed)[1].mean() * size_hw[0] * size_hw[1] for seed in range(5)]
    assert 0.01 < np.mean(areas) / min(size_hw) ** 2 < 0.08


def test_contrast_goes_with_the_texture():
    smooth, coarse = (surface((120, 120, 120), noise) for noise in (2.0, 10.0))
    assert contrast_of(coarse, *paint(coarse, "scratch")) > 2.5 * contrast_of(smooth, *paint(smooth, "scratch"))


def test_a_surface_without_texture_shows_defects_too():
    image = np.full((100, 100, 3), 128, np.uint8)
    assert contrast_of(image, *paint(image, "dent")) == pytest.approx(CONTRAST_LEVELS[0], rel=0.4)


def test_the_same_numbers_give_the_same_defect():
    first, second = (paint(surface(), "fibre", seed=7) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert (paint(surface(), "fibre", seed=8)[1] != first[1]).any()


def test_defects_lie_on_the_part_and_not_on_its_background():
    image = np.zeros((200, 200, 3), np.uint8)
    image[20:90, 110:190] = 120
    for kind in ("hole", "stain", "pit_cluster"):
        for seed in range(3):
            _, mask = paint(image, kind, seed)
            assert mask[15:95, 105:195].sum() > 0.9 * mask.sum()


def test_a_surface_that_fills_the_image_is_all_part():
    assert part_mask(surface()).all()
    assert part_mask(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)).all()


def test_texture_is_measured_beside_shading_and_edges():
    image = surface((100, 100, 100), 5).astype(np.float32) + np.linspace(0, 80, 120)[None, :, None].astype(np.float32)
    image[:, :20] += 60
    assert texture_level(image, 15) == pytest.approx(5, rel=0.35)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`kind` must name known .*\['spot'\]"):
        paint(surface(), "spot")
    with pytest.raises(ValueError, match=r"`image` must have shape \(H, W, 3\) and be uint8"):
        paint(surface()[..., 0])
