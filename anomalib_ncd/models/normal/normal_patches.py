# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What sets a region apart from the patches of normal images.

A detector such as PatchCore (Roth et al., CVPR 2022) measures how far a patch is from the nearest normal one. Which way
it lies from there tells more: the surface, which all kinds of defect share, falls away, and what is left is the defect.
Residuals of features: "ResAD" (Yao et al., NeurIPS 2024, arXiv 2410.20047), who use them for detection across products.
"""

import torch
from anomalib.models.components import DynamicBufferMixin
from torch import Tensor
from torch.nn import functional as F

MAX_NORMAL_PATCHES = 8192
NEIGHBOURHOOD = 0.05  # squared distance, over the number of dimensions, within which normal patches are neighbours
SMALLEST = 1e-6


class StandardPatches(DynamicBufferMixin):
    """Keeps patches ``(P, D)`` of normal images, standardised over them, of any number in a checkpoint."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("patches", torch.zeros(0, dim))
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.patches: Tensor
        self.centre: Tensor
        self.scale: Tensor


class NormalPatches(StandardPatches):
    """Keeps patches of normal images and describes regions by how they differ from them.

    Patches are standardised over the normal ones. From each patch of a region, the mean of its normal neighbours is
    taken, by attention: a normal patch at the squared distance d counts with exp(-d / 0.05 D). The region points where
    the mean of these residuals does, weighted by the mask and by the fourth power of their length, for masks of
    detectors are larger than defects. It is as long as its longest residual, for the mean of a small defect in a large
    mask is short. To tell whether a region is like a known one, the root of the mean's length is better, so there is a
    second description with it.

    All that is fitted lies in buffers, so that it travels with checkpoints. ``dim`` is the width D of a patch.
    """

    def fit(self, patches: Tensor, seed: int = 0) -> None:
        """Take over normal patches ``(P, D)``, of more than 8,192 random ones, in place of those known before."""
        if patches.ndim != 2 or patches.shape[1] != self.dim or not len(patches):
            msg = f"`patches` must have shape (P, {self.dim}), P of 1 or more, got {tuple(patches.shape)}."
            raise ValueError(msg)
        rows = patches.detach().float().to(self.centre.device)
        centre, scale = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp(min=SMALLEST)
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:MAX_NORMAL_PATCHES]
        self.centre, self.scale = centre, scale
        self.patches = ((rows[chosen.to(rows.device)] - centre) / scale).contiguous()

    def forward(self, patches: Tensor, share: Tensor) -> Tensor:
        """Describe regions by what sets them apart from normal patches.

        Returns ``(B, 2, D)`` float32, near 0 for what looks normal: as long as the longest residual, for clusters and
        classes, and as long as their mean, for what is known and unknown; of V views of a region the mean direction
        and the mean lengths. Patches are ``(B, V, N, D)`` float; ``share`` ``(B, V, N, 1)``, 0 or more, is how much of
        each belongs to the region, not 0 for all of a view.
        """
        if not len(self.patches):
            msg = "No normal patches are known yet; fit them, or load a checkpoint that has some."
            raise RuntimeError(msg)
        with torch.autocast(patches.device.type, enabled=False):
            residuals = self._residuals(patches.float(), share)
            squares = residuals.square().mean(dim=3, keepdim=True) * (share > 0)
            largest = squares.amax(dim=2, keepdim=True)
            weights = share.float() * (squares / largest.clamp(min=SMALLEST)).square()
            mean = (residuals * weights).sum(dim=2) / weights.sum(dim=2).clamp(min=SMALLEST)
            lengths = torch.stack([largest[:, :, 0] ** 0.5, mean.square().mean(dim=2, keepdim=True) ** 0.25], dim=2)
            direction = F.normalize(F.normalize(mean, dim=2).sum(dim=1), dim=1)
            return direction[:, None] * lengths.mean(dim=1)

    def _residuals(self, patches: Tensor, share: Tensor) -> Tensor:
        """Residuals of patches ``(B, V, N, D)``; zeros where they have no share in a region."""
        if torch.compiler.is_compiling():  # a graph would get shapes that depend on the mask
            return self._residual((patches - self.centre) / self.scale)
        places = (share.flatten() > 0).nonzero().squeeze(1)
        rows = (patches.flatten(0, 2).index_select(0, places) - self.centre) / self.scale
        return torch.zeros_like(patches).flatten(0, 2).index_copy(0, places, self._residual(rows)).view_as(patches)

    def _residual(self, rows: Tensor) -> Tensor:
        """Standardised patches ``(..., D)`` less their normal neighbours."""
        nearness = -self.patches.square().sum(dim=1) / (NEIGHBOURHOOD * self.dim)
        flat = rows.reshape(1, 1, -1, self.dim)
        # -|p - n|² is 2 p·n - |n|² but for |p|², which adds the same to all.
        neighbours = F.scaled_dot_product_attention(
            flat,
            self.patches[None, None],
            self.patches[None, None],
            attn_mask=nearness[None, None, None],
            scale=2 / (NEIGHBOURHOOD * self.dim),
        )
        return rows - neighbours.view_as(rows)
