# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_ncd.regions.views import eval_view, resize_antialiased, resize_short_side, whole_view


def coordinates(height, width):
    """An image whose red is its column and whose green is its row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_the_view_is_the_middle_of_a_square_of_its_own_scale():
    view, mask = eval_view(coordinates(256, 256), np.ones((256, 256), bool))
    assert view.shape == (3, 224, 224)
    assert mask.shape == (1, 224, 224)
    assert view[:, 0, 0].tolist() == [16, 16, 0]
    assert view[:, 223, 223].tolist() == [239, 239, 0]
    assert view.flags["C_CONTIGUOUS"]
    assert mask.flags["C_CONTIGUOUS"]


def test_the_mask_becomes_soft_where_it_shrinks():
    mask = np.zeros((512, 512), bool)
    mask[:, 33:] = True  # cuts a pair of columns in two
    _, soft = eval_view(coordinates(512, 512), mask)
    assert soft.dtype == np.float32
    assert soft[0, 0, 0] == pytest.approx(0.5)
    assert (soft[0, :, 1:] == 1).all()


def test_nothing_of_a_whole_image_is_cut():
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:, 0] = 200
    image[32:, :, 1] = 100
    view = whole_view(image, 32)
    assert view.shape == (3, 32, 32)
    assert view.flags["C_CONTIGUOUS"]
    assert view[0, 0].tolist() == [0] * 16 + [200] * 16
    assert view[1, :, 0].tolist() == [0] * 16 + [100] * 16


def test_the_longer_side_is_cut():
    image, mask = resize_short_side(coordinates(30, 90), np.zeros((30, 90), bool), 10)
    assert image.shape == (10, 30, 3)
    assert mask.shape == (10, 30)
    tall, _ = resize_short_side(coordinates(90, 30), np.zeros((90, 30), bool), 20)
    assert tall.shape == (60, 20, 3)


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="`image_size` must be 1 or more, got 0"):
        eval_view(coordinates(20, 20), np.ones((20, 20), bool), 0)


@pytest.mark.parametrize("resampling", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_resizing_is_what_torchvision_does_to_float_images(resampling):
    image = np.random.default_rng(1).random((50, 70, 3), dtype=np.float32)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(tensor, size=(24, 31), mode=resampling.name.lower(), antialias=True)
    found = resize_antialiased(image, (24, 31), resampling)
    np.testing.assert_allclose(found, wanted[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_resizing_to_equal_sizes_keeps_the_values_and_constants_stay():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(resize_antialiased(array, (3, 4)), array)
    np.testing.assert_allclose(resize_antialiased(np.full((9, 9), 5), (40, 2), Image.Resampling.BICUBIC), 5, rtol=1e-6)


@pytest.mark.parametrize("size_hw", [(120, 90), (20, 15)])
def test_a_resized_part_is_that_part_of_the_resized_whole(size_hw):
    array = np.random.default_rng(2).random((40, 30), dtype=np.float32)
    whole = resize_antialiased(array, size_hw, Image.Resampling.BICUBIC)
    left, top, right, bottom = 6, 3, 13, 17
    ratio = array.shape[0] / size_hw[0]
    box = (left * ratio, top * ratio, right * ratio, bottom * ratio)
    part = resize_antialiased(array, (bottom - top, right - left), Image.Resampling.BICUBIC, box)
    np.testing.assert_allclose(part, whole[top:bottom, left:right], atol=1e-5)


def test_example_of_eval_view():
    view, mask = eval_view(np.zeros((50, 50, 3), np.uint8), np.ones((50, 50), bool))
    assert (view.shape, view.dtype, mask.shape, mask.dtype) == (
        (3, 224, 224),
        np.dtype("uint8"),
        (1, 224, 224),
        np.dtype("float32"),
    )
