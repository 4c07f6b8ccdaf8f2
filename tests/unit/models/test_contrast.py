# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd.models.contrast import contrast
from anomalib_ncd.regions.elements import cut_elements
from anomalib_ncd.regions.views import eval_views

SIDE = 72


def region(inside, around, top=24, height=24):
    """A view that is even in a square and around it, with the mask of the square."""
    views, masks = torch.full((1, 3, SIDE, SIDE), around, dtype=torch.uint8), torch.zeros(1, 1, SIDE, SIDE)
    views[..., top : top + height, 24:48] = inside
    masks[..., top : top + height, 24:48] = 1
    return views, masks


def test_lighter_is_above_zero_and_darker_below():
    lighter, darker, level = (float(contrast(*region(inside, 100))) for inside in (115, 85, 100))
    assert lighter == pytest.approx(torch.tensor(1.0).tanh().item(), abs=0.01)  # one least step of grey
    assert darker == pytest.approx(-lighter, abs=1e-5)
    assert level == pytest.approx(0, abs=1e-5)


def test_the_same_step_counts_less_where_the_surroundings_are_rough():
    views, masks = region(160, 100)
    rough = views.clone()
    rough[..., ::2] += (40 * (1 - masks[0, 0, :, ::2])).to(torch.uint8)
    assert 0 < contrast(rough, masks) < contrast(views, masks)


def test_what_lies_far_away_does_not_count():
    views, masks = region(130, 100)
    far = views.clone()
    far[..., :8] = 255
    torch.testing.assert_close(contrast(far, masks), contrast(views, masks), atol=0.02, rtol=0)


def test_rows_and_columns_are_alike():
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    masks = torch.rand(4, 1, SIDE, SIDE, generator=generator)
    turned = contrast(views.transpose(2, 3), masks.transpose(2, 3))
    torch.testing.assert_close(turned, contrast(views, masks), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_an_inside_or_an_outside_there_is_no_contrast(value):
    views, _ = region(160, 100)
    found = contrast(views, torch.full((1, 1, SIDE, SIDE), value))
    assert found.shape == (1, 1)
    assert abs(float(found)) < 1e-3


@pytest.mark.parametrize("grey", [60, 180])
def test_the_edge_of_a_strip_is_no_step(grey):
    image = np.random.default_rng(0).integers(110, 130, (40, 200, 3), dtype=np.uint8)
    found = []
    for first in (0, 16, 32):  # rows, at the upper edge, in the middle and at the lower edge
        strip, elements = image.copy(), np.zeros((40, 200), dtype=np.int32)
        strip[first : first + 8, 70:130], elements[first : first + 8, 70:130] = grey, 1
        regions = cut_elements(strip, elements, elements, (0, 1))
        views, masks = eval_views([(regions[0].image, regions[0].mask)])
        found.append(float(contrast(torch.from_numpy(views), torch.from_numpy(masks))))
    assert regions[0].image.shape[0] > 40
    assert abs(found[1]) > 0.5
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert found[2] == pytest.approx(found[1], abs=0.05)
