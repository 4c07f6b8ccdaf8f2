# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a region is lighter or darker than what lies around it."""

from torch import Tensor
from torch.nn import functional as F

LEAST_GREY_STEP = 15.0  # of 255, that counts where the surroundings are even


def contrast(views: Tensor, masks: Tensor) -> Tensor:
    """How much lighter than its surroundings each region is, ``(R, 1)`` in [-1, 1], which networks hardly tell.

    It is the difference of the mean grey values in the mask and in a ring around it, an eighteenth of the view wide. A
    step counts less where the ring is rough. Arguments as :meth:`Describer.forward`.
    """
    grey, masks, reach = views.float().mean(dim=1, keepdim=True), masks.to(views.device).float(), views.shape[-1] // 18
    near = F.max_pool2d(F.max_pool2d(masks, (2 * reach + 1, 1), 1, (reach, 0)), (1, 2 * reach + 1), 1, (0, reach))
    inside, _ = _mean_and_spread(grey, masks)
    around, spread = _mean_and_spread(grey, near * (1 - masks))
    return ((inside - around) / (2 * spread + LEAST_GREY_STEP)).tanh()


def _mean_and_spread(grey: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation ``(R, 1)`` of grey values ``(R, 1, S, S)``, of all without weights."""
    weights = weights + 1e-6
    weights = weights / weights.sum(dim=(2, 3), keepdim=True)
    mean = (grey * weights).sum(dim=(2, 3), keepdim=True)
    variance = ((grey - mean).square() * weights).sum(dim=(2, 3))
    return mean.flatten(1), variance.sqrt()
