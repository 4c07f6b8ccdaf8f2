# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a region is lighter or darker than what lies around it."""

from torch import Tensor
from torch.nn import functional as F

LEAST_GREY_STEP = 15.0  # of 255, that counts where the surroundings are even
TINY = 1e-6  # weight of what doesn't count, so that there is a mean where nothing counts


def contrast(views: Tensor, masks: Tensor) -> Tensor:
    """How much lighter than its surroundings each region is, ``(R, 1)`` in [-1, 1], which networks hardly tell.

    It is the difference of the mean grey values in the mask and in a ring around it, an eighteenth of the view wide. A
    step counts less where the ring is rough. Arguments as :meth:`Describer.forward`.
    """
    grey, masks, reach = views.float().mean(dim=1, keepdim=True), masks.to(views.device).float(), views.shape[-1] // 18
    ring = _widened(_widened(masks, reach, 0), 0, reach) * (1 - masks)
    # Outside of the image rows and columns are black throughout, and resizing mixes them into their neighbours.
    beside = 1 - _widened((grey.amax(dim=2, keepdim=True) == 0).float(), 0, reach)
    above = 1 - _widened((grey.amax(dim=3, keepdim=True) == 0).float(), reach, 0)
    inside, _ = _mean_and_spread(grey, masks + TINY)
    around, spread = _mean_and_spread(grey, (ring + TINY) * beside * above + TINY**2)
    return ((inside - around) / (2 * spread + LEAST_GREY_STEP)).tanh()


def _widened(masks: Tensor, rows: int, columns: int) -> Tensor:
    """Masks ``(R, 1, H, W)``, wider on each side by so many rows and columns."""
    return F.max_pool2d(masks, (2 * rows + 1, 2 * columns + 1), 1, (rows, columns))


def _mean_and_spread(grey: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation ``(R, 1)`` of grey values ``(R, 1, S, S)``; weights above 0."""
    weights = weights / weights.sum(dim=(2, 3), keepdim=True)
    mean = (grey * weights).sum(dim=(2, 3), keepdim=True)
    variance = ((grey - mean).square() * weights).sum(dim=(2, 3))
    return mean.flatten(1), variance.sqrt()
