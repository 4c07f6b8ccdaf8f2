# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How unlike the normal images an image is as a whole, and in which way.

The detector has looked at it before, but with another network, or another idea of what is normal. Distances to a memory
of normal patches are PatchCore's (Roth et al., CVPR 2022). That an image is taken whole matters: a patch of a normal
image lies at its place in the picture as those of other normal images do, which no crop around a region does.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomalib_ncd.models.normal.normal_patches import SMALLEST, NormalPatches, StandardPatches

MAX_PATCHES = 20_000  # of each scale; fewer cover the variety of many normal images worse
MAX_CALIBRATION_IMAGES = 120
# Spreads of normal images above their median at which the novelty is a half, and how softly it rises there.
THRESHOLD, SOFTNESS = 1.5, 0.5
UPPER_QUANTILE = 0.9
SPREADS_TO_QUANTILE = 1.2816  # standard deviations from the median of a normal distribution to that quantile
LEAST_SPREAD = 0.01
IMAGES_PER_PASS = 8


class PatchMemory(StandardPatches):
    """Normal patches, to which the distances of others are measured."""

    def fit(self, patches: Tensor) -> None:
        """Take over patches ``(P, D)`` float, standardised by themselves."""
        self.centre, self.scale = patches.mean(dim=0), patches.std(dim=0, correction=0).clamp(min=SMALLEST)
        self.patches = (patches - self.centre) / self.scale

    def forward(self, patches: Tensor, left_out: Tensor | None = None) -> Tensor:
        """Root mean square distance ``(B, N)`` of patches ``(B, N, D)`` to the nearest normal one."""
        rows = (patches - self.centre) / self.scale
        # |p - n|² is |p|² - (2 p·n - |n|²).
        nearness = F.linear(2 * rows, self.patches, -self.patches.square().sum(dim=1))
        if left_out is not None:
            nearness = nearness.masked_fill(left_out, float("-inf"))
        return ((rows.square().sum(dim=2) - nearness.amax(dim=2)).clamp(min=0) / self.dim).sqrt()


class ImageNovelty(nn.Module):
    """Keeps patches of whole normal images and says how unlike them an image is, and in which way.

    On two scales: by the single patch that is farthest from the nearest normal one, for small defects, and by the mean
    distance of averages of 3 x 3 patches, for what is wrong everywhere. Each is measured in spreads of normal images,
    which are compared with the others; the larger of the two counts. Which scale defects are of nobody knows before.

    The way is the direction of the residual of :class:`NormalPatches`. All that is fitted lies in buffers, so that it
    travels with checkpoints. ``dim`` is the width D of a patch.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.single, self.smooth, self.normal = PatchMemory(dim), PatchMemory(dim), NormalPatches(dim)
        self.register_buffer("middle", torch.zeros(2))
        self.register_buffer("softness", torch.full((2,), torch.inf))
        self.middle: Tensor
        self.softness: Tensor

    def fit(self, batches: Iterable[Tensor], num_images: int, seed: int = 0) -> None:
        """Take over normal images in place of those known before.

        One alone has no others to be compared with: every image is then half novel.

        Args:
            batches: Patches ``(B, N, D)`` float of whole images, in random order; N is a square.
            num_images: How many images there are in all batches.
            seed: Seed of the choice of patches, of which about 20,000 of each scale are kept.
        """
        generator = torch.Generator().manual_seed(seed)
        kept: tuple[list[Tensor], list[Tensor]] = ([], [])
        calibration: list[Tensor] = []
        for batch in batches:
            self._check(batch)
            if len(calibration) < MAX_CALIBRATION_IMAGES:
                calibration += list(batch.half())
            for rows, of_scale in zip(_scales(batch.float()), kept, strict=True):
                count = min(math.ceil(MAX_PATCHES / num_images), rows.shape[1])
                of_scale += [one[torch.randperm(len(one), generator=generator)[:count].to(one.device)] for one in rows]
        for memory, of_scale in zip((self.single, self.smooth), kept, strict=True):
            memory.fit(torch.cat(of_scale))
        self.normal.fit(torch.cat(kept[0]), seed)
        if len(kept[0]) < 2:
            self.middle, self.softness = torch.zeros_like(self.middle), torch.full_like(self.softness, torch.inf)
            return
        owners = [torch.arange(len(rows)).repeat_interleave(len(rows[0])).to(rows[0].device) for rows in kept]
        known = torch.cat(
            [
                self._distances(image[None].float(), [of_patch == number for of_patch in owners])
                for number, image in enumerate(calibration[:MAX_CALIBRATION_IMAGES])
            ]
        )
        median = known.quantile(0.5, dim=0)
        spread = (known.quantile(UPPER_QUANTILE, dim=0) - median) / SPREADS_TO_QUANTILE
        spread = spread.clamp(min=LEAST_SPREAD)
        self.middle, self.softness = median + THRESHOLD * spread, SOFTNESS * spread

    def forward(self, patches: Tensor) -> Tensor:
        """What sets images apart from normal ones, ``(B, D)``, by their patches ``(B, N, D)``, N a square.

        As long as an image is novel: near 0 for what looks like a normal image, a half at 1.5 spreads above their
        median, 1 at most.
        """
        if not len(self.single.patches):
            msg = "No normal images are known yet; fit them, or load a checkpoint that has some."
            raise RuntimeError(msg)
        with torch.autocast(patches.device.type, enabled=False):
            parts = (patches,) if torch.compiler.is_compiling() else patches.split(IMAGES_PER_PASS)
            return torch.cat([self._novelty(part.float()) for part in parts])

    def _novelty(self, patches: Tensor) -> Tensor:
        """:meth:`forward` of a bounded number of images."""
        length = ((self._distances(patches) - self.middle) / self.softness).amax(dim=1, keepdim=True).sigmoid()
        views = patches[:, None]
        return length * F.normalize(self.normal(views, torch.ones_like(views[..., :1]))[:, 0], dim=1)

    def _distances(self, patches: Tensor, left_out: Sequence[Tensor | None] = (None, None)) -> Tensor:
        """Logarithms ``(B, 2)`` of the largest distance of single patches and the mean one of smoothed ones."""
        single, smooth = _scales(patches)
        largest = self.single(single, left_out[0]).amax(dim=1)
        mean = self.smooth(smooth, left_out[1]).mean(dim=1)
        return torch.stack([largest, mean], dim=1).clamp(min=SMALLEST).log()

    def _check(self, batch: Tensor) -> None:
        if batch.ndim != 3 or batch.shape[2] != self.dim or math.isqrt(batch.shape[1]) ** 2 != batch.shape[1]:
            msg = f"Patches must have shape (B, N, {self.dim}) with a square N, got {tuple(batch.shape)}."
            raise ValueError(msg)


def _scales(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Patches ``(B, N, D)`` as they are, and averages of 3 x 3 at every second place."""
    side = math.isqrt(patches.shape[1])
    maps = patches.transpose(1, 2).unflatten(2, (side, side))
    smooth = F.avg_pool2d(maps, 3, stride=2, padding=1, count_include_pad=False)
    return patches, smooth.flatten(2).transpose(1, 2)
