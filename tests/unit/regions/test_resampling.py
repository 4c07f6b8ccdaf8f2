# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_ncd.regions.resampling import resize_antialiased

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [((64, 48), (30, 100)), ((40, 40), (130, 41)), ((7, 5), (13, 3)), ((90, 70), (9, 70)), ((1, 6), (5, 2))]


@pytest.mark.parametrize("resampling", FILTERS)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_it_is_pillows_filter(old, new, resampling):
    array = np.random.default_rng(0).random(old, dtype=np.float32)
    wanted = np.asarray(Image.fromarray(array).resize(new[::-1], FILTERS[resampling]))
    np.testing.assert_allclose(resize_antialiased(array, new, resampling), wanted, atol=2e-6)


@pytest.mark.parametrize("resampling", FILTERS)
def test_it_is_what_torchvision_does_to_float_images(resampling):
    image = np.random.default_rng(1).random((50, 70, 3), dtype=np.float32)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(tensor, size=(24, 31), mode=resampling, antialias=True)
    found = resize_antialiased(image, (24, 31), resampling)
    np.testing.assert_allclose(found, wanted[0].permute(1, 2, 0).numpy(), atol=1e-5)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_a_window_is_a_part_of_the_whole(old, new):
    array = np.random.default_rng(2).random(old)
    whole = resize_antialiased(array, new, "bicubic")
    left, top, right, bottom = new[1] // 3, new[0] // 4, new[1], new[0]
    part = resize_antialiased(array, new, "bicubic", (left, top, right, bottom))
    np.testing.assert_allclose(part, whole[top:bottom, left:right], atol=1e-6)


def test_equal_sizes_keep_the_values_and_constants_stay():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(resize_antialiased(array, (3, 4)), array)
    np.testing.assert_allclose(resize_antialiased(np.full((9, 9), 5), (40, 2), "bicubic"), 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4), (2, 2)), r"`array` must have shape \(H, W\) or \(H, W, C\)"),
        ((np.zeros((0, 4)), (2, 2)), "not be empty"),
        ((np.zeros((4, 4)), (0, 2)), "`size_hw` must be height and width"),
        ((np.zeros((4, 4)), (2, 2), "nearest"), r"`resampling` must be one of \['bicubic', 'bilinear'\]"),
        ((np.zeros((4, 4)), (2, 2), "bicubic", (0, 0, 3, 2)), "`window` must lie inside of 2 x 2"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_antialiased(*arguments)
