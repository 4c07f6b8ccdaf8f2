# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Views of a region for training: the paper's augmentation.

OpenCV, as it is an order of magnitude faster here than Pillow. Views stay 8-bit; the model normalises them.
"""

import cv2
import numpy as np
import torch

from anomalib_ncd.regions.views import CROP_RATIO, resize_short_side

BLUR_KERNELS = (9, 13, 17, 21, 25, 29, 33)
SHARPEN_KERNEL = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13

View = tuple[torch.Tensor, torch.Tensor]


class TrainView:
    """A random view for training (paper, implementation details).

    Short side to 256, random 224 crop, flips, colour jitter, a random number of quarter turns, sharpness, Gaussian
    blur and posterisation. The mask moves with the image. Random numbers come from torch's global generator, so that
    ``seed_everything`` and Lightning's worker seeding apply.
    """

    def __init__(self, image_size: int = 224) -> None:
        self.image_size = image_size

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> View:
        """Make a random view; shapes and types as of :func:`~anomalib_ncd.regions.views.eval_view`."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        resized = int(self.image_size / CROP_RATIO)
        image, soft_mask = resize_short_side(image, mask, resized)
        left, top = (int(rng.random() * (resized - self.image_size)) for _ in range(2))
        window = np.s_[top : top + self.image_size, left : left + self.image_size]
        image, soft_mask = image[window], soft_mask[window]
        for axis in (1, 0):
            if rng.random() < 0.5:
                image, soft_mask = np.flip(image, axis), np.flip(soft_mask, axis)
        image = jitter_colour(np.ascontiguousarray(image), rng)
        turns = int(rng.integers(4))
        image, soft_mask = np.rot90(image, turns), np.rot90(soft_mask, turns)
        image = adjust_sharpness(np.ascontiguousarray(image), 0.2 + 1.8 * rng.random())
        image = blur(image, int(rng.choice(BLUR_KERNELS)), rng.uniform(0.1, 2.0))
        return to_view(posterize(image, int(rng.integers(5, 9))), soft_mask)


def jitter_colour(
    image: np.ndarray,
    rng: np.random.Generator,
    brightness: tuple[float, float] = (0.6, 1.4),
    contrast: tuple[float, float] = (0.6, 1.4),
    saturation: tuple[float, float] = (0.6, 1.8),
) -> np.ndarray:
    """Change brightness, contrast and saturation by random factors, in random order."""
    steps = ((adjust_brightness, *brightness), (adjust_contrast, *contrast), (adjust_saturation, *saturation))
    for index in rng.permutation(len(steps)):
        adjust, low, high = steps[index]
        image = adjust(image, rng.uniform(low, high))
    return image


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply all values of a ``uint8`` image."""
    return cv2.convertScaleAbs(image, alpha=factor)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Move all values of a ``uint8`` image away from (or towards) the mean grey value."""
    mean = int(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean() + 0.5)
    levels = np.arange(256, dtype=np.float32) * factor + mean * (1 - factor)
    return cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Move the colours of a ``uint8`` image away from (or towards) grey."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend a ``uint8`` image with its smoothed self: below 1 softer, above 1 sharper; the border row stays."""
    smooth = image.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, SHARPEN_KERNEL)[1:-1, 1:-1]
    return cv2.addWeighted(image, factor, smooth, 1 - factor, 0)


def blur(image: np.ndarray, kernel_size: int, sigma: float) -> np.ndarray:
    """Gaussian blur; the kernel is cut where its weights no longer move an 8-bit value."""
    reach = 2 * int(np.ceil(4 * sigma)) + 1
    size = min(kernel_size, reach)
    return cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper ``bits`` bits of each value."""
    return image & np.uint8(256 - 2 ** (8 - bits))


def to_view(image: np.ndarray, soft_mask: np.ndarray) -> View:
    """Channels-first tensors of an image and its soft mask."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return pixels, torch.from_numpy(np.ascontiguousarray(soft_mask[None], dtype=np.float32))
