# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as F

from anomalib_ncd.data.transforms import (
    BLUR_KERNELS,
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
from anomalib_ncd.regions.views import eval_view


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
    np.testing.assert_array_equal(jitter_colour(photo, rng, (1, 1), (1, 1), (1, 1)), photo)
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = [jitter_colour(grey, rng, (0.6, 1.4), (1, 1), (1, 1))[0, 0, 0] for _ in range(300)]
    assert 60 <= min(values) < 65
    assert 135 < max(values) <= 140


def test_jitter_comes_in_any_order(photo):
    images = [jitter_colour(photo, np.random.default_rng(i), (1.4, 1.4), (0.6, 0.6), (1.8, 1.8)) for i in range(30)]
    assert len({image.tobytes() for image in images}) > 2


def test_the_mask_moves_with_the_image(monkeypatch):
    # Without the changes of colour an image that shows its mask must still show it.
    for name in ("jitter_colour", "adjust_sharpness", "blur", "posterize"):
        monkeypatch.setattr(f"anomalib_ncd.data.transforms.{name}", lambda image, *_: image)
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
        monkeypatch.setattr(f"anomalib_ncd.data.transforms.{name}", lambda image, *_: image)
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
