# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What sets a region apart from the patches of normal images.

A detector such as PatchCore (Roth et al., CVPR 2022) measures how far a patch is from the nearest normal one. Which way
it lies from there tells more: the surface, which all kinds of defect share, falls away, and what is left is the defect.
Residuals of features: "ResAD" (Yao et al., NeurIPS 2024, arXiv 2410.20047), who use them for detection across products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomalib_ncd.models.buffers import make_room
from anomalib_ncd.models.heads import LOGIT_TEMPERATURE
from anomalib_ncd.models.normal.image_novelty import ImageNovelty

MAX_NORMAL_PATCHES = 8192
NEIGHBOURHOOD = 0.05
"""Squared distance, over the number of dimensions, within which normal patches count as neighbours."""
CONSTANT = 1.5
"""Beside the residual, so that its length counts for classifiers that look at directions alone."""
COMPARED_TEMPERATURE = 0.05
"""What cosines are divided by where the constant brings them nearer to 1; as sure as without, on painted sets."""
SCORE_POWER = 0.5
"""How far the detector's score stretches the residuals that are clustered."""
LEAST_SCORE = 0.02
NOVELTY_WEIGHT = 0.5
"""How far apart images like normal ones and others lie."""
DESCRIPTION = 3
"""Of regions, as :meth:`NormalPatches.forward` gives it; prototypes fit no other."""
SMALLEST = 1e-6


class NormalPatches(nn.Module):
    """Keeps patches of normal images and describes regions by how they differ from them.

    Patches are standardised over the normal ones. From each patch of a region, the mean of its normal neighbours is
    taken, by attention: a normal patch at the squared distance d counts with exp(-d / 0.05 D). The region points where
    the mean of these residuals does, weighted by the mask and by the fourth power of their length, for masks of
    detectors are larger than defects. Its length is the root of the longest residual's: the mean of a small defect in a
    large mask is short, and the root keeps strong defects from drowning out weak ones. To tell whether a region is like
    a known one, the mean's length is better, so there is a second description with it.

    Beside the residual stands how unlike the normal images the whole image is (:class:`ImageNovelty`).

    All that is fitted lies in buffers, so that it travels with checkpoints.

    Args:
        dim: Width D of a patch.

    Attributes:
        novelty: Compares whole images; fitted by itself.

    Example:
        >>> patches = NormalPatches(dim=2)
        >>> patches.fit(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]]))
        >>> patches(torch.tensor([[[0.0, 1.0]], [[3.0, 1.0]]]), torch.ones(2, 1, 1))[:, 0].norm(dim=1)
        tensor([0.0000, 1.4953])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.novelty = ImageNovelty(dim)
        self.register_buffer("patches", torch.zeros(0, dim))
        self.register_buffer("centre", torch.zeros(0))
        self.register_buffer("scale", torch.zeros(0))
        self.register_buffer("description", torch.zeros(0))
        self.patches: Tensor
        self.centre: Tensor
        self.scale: Tensor
        self.description: Tensor

    @property
    def is_fitted(self) -> bool:
        """Whether there are normal patches to compare with."""
        return len(self.patches) > 0

    @property
    def feature_dim(self) -> int:
        """Width of :meth:`feature`."""
        return self.dim + 2

    @property
    def logit_temperature(self) -> float:
        """What cosines to the prototypes are divided by in predictions."""
        return COMPARED_TEMPERATURE if self.is_fitted else LOGIT_TEMPERATURE

    def fit(self, patches: Tensor, seed: int = 0) -> None:
        """Take over normal patches in place of those known before.

        Args:
            patches: ``(P, D)`` float, at least one. Of more than 8,192, random ones are kept.
            seed: Seed of the choice.

        Raises:
            ValueError: If there is none, or they are of another width.
        """
        if patches.ndim != 2 or patches.shape[1] != self.dim or not len(patches):
            msg = f"`patches` must have shape (P, {self.dim}), P of 1 or more, got {tuple(patches.shape)}."
            raise ValueError(msg)
        rows = patches.detach().float().to(self.centre.device)
        centre, scale = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp(min=SMALLEST)
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:MAX_NORMAL_PATCHES]
        self.centre, self.scale = centre, scale
        self.description = torch.full_like(centre[:1], DESCRIPTION)
        self.patches = ((rows[chosen.to(rows.device)] - centre) / scale).contiguous()

    def forget(self) -> None:
        """Forget all patches, as if :meth:`fit` had not been called."""
        self.patches, self.centre, self.scale = self.patches[:0], self.centre[:0], self.scale[:0]
        self.description = self.description[:0]
        self.novelty.forget()

    def forward(self, patches: Tensor, share: Tensor) -> Tensor:
        """Describe regions by what sets them apart from normal patches.

        Args:
            patches: ``(B, N, D)`` float.
            share: ``(B, N, 1)``, 0 or more: how much of each patch belongs to the region, not 0 for all.

        Returns:
            ``(B, 2, D)`` float32, near 0 for what looks normal: as long as the longest residual, for clusters and
            classes, and as long as their mean, for what is known and unknown.
        """
        with torch.autocast(patches.device.type, enabled=False):
            residuals = self._residuals(patches.float(), share)
            squares = residuals.square().mean(dim=2, keepdim=True) * (share > 0)
            largest = squares.amax(dim=1, keepdim=True)
            weights = share.float() * (squares / largest.clamp(min=SMALLEST)).square()
            mean = (residuals * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=SMALLEST)
            squared_lengths = torch.cat([largest[:, 0], mean.square().mean(dim=1, keepdim=True)], dim=1)
            return F.normalize(mean, dim=1)[:, None] * squared_lengths[..., None] ** 0.25  # the root of the length

    def with_novelty(self, rows: Tensor, whole: Tensor | None) -> Tensor:
        """Put beside the descriptions of regions how novel the images are that they lie in.

        Args:
            rows: ``(B, 2, D)`` float, of :meth:`forward`.
            whole: Patches ``(B, N, D)`` float of the whole image that each region lies in.

        Returns:
            ``(B, 2, D + 1)`` float.

        Raises:
            ValueError: If there are no whole images, but normal ones to compare them with.
        """
        if not self.novelty.is_fitted:
            return F.pad(rows, (0, 1))
        if whole is None:
            msg = "The classes were found with normal images, to which whole images are compared; give them as `whole`."
            raise ValueError(msg)
        return self.beside(rows, self.novelty(whole))

    @staticmethod
    def beside(rows: Tensor, novelty: Tensor) -> Tensor:
        """Put a novelty beside descriptions of regions.

        Regions of images like normal ones and of others lie on two sides, apart by half of what a residual of length 1
        is long. For what is known and unknown it doesn't count.

        Args:
            rows: ``(B, 2, D)`` float, of :meth:`forward`.
            novelty: ``(B,)`` float in [0, 1].

        Returns:
            ``(B, 2, D + 1)`` float.
        """
        side = (novelty.to(rows) - 0.5) * NOVELTY_WEIGHT
        return torch.cat([rows, torch.stack([side, torch.zeros_like(side)], dim=1)[..., None]], dim=2)

    def feature(self, rows: Tensor) -> Tensor:
        """Make features ``(B, D + 2)`` for a classifier by directions of what :meth:`with_novelty` returned."""
        return F.pad(rows, (0, 1), value=CONSTANT) * self.dim**0.5

    @staticmethod
    def lengths(features: Tensor) -> Tensor:
        """How unlike normal images regions are, ``(R,)`` float: length of the residual in features ``(R, D + 2)``."""
        return features[:, :-2].norm(dim=1)

    @staticmethod
    def stretched(features: Tensor, scores: Tensor) -> Tensor:
        """Stretch residuals by the detector's scores, for the detector has another view of what is normal.

        By the root of the score over the median of all. It is for the search of clusters alone; predictions do
        without.

        Args:
            features: ``(R, D + 2)`` float, of :meth:`feature`.
            scores: ``(R,)`` float in [0, 1], anomaly score of each region.

        Returns:
            ``(R, D + 2)`` float; the novelty and the constant stay.

        Example:
            >>> features = torch.tensor([[3.0, 0.2, 1.5], [3.0, 0.2, 1.5]])
            >>> NormalPatches.stretched(features, torch.tensor([0.05, 0.8]))
            tensor([[1.0290, 0.2000, 1.5000],
                    [4.1160, 0.2000, 1.5000]])
        """
        clamped = scores.to(features).clamp(min=LEAST_SCORE)
        if not len(clamped):
            return features
        factors = (clamped / clamped.quantile(0.5)) ** SCORE_POWER
        return torch.cat([features[:, :-2] * factors[:, None], features[:, -2:]], dim=1)

    def _residuals(self, patches: Tensor, share: Tensor) -> Tensor:
        """Residuals of patches ``(B, N, D)``; zeros where they have no share in a region."""
        if torch.compiler.is_compiling():  # a graph would get shapes that depend on the mask
            return self._residual((patches - self.centre) / self.scale)
        places = (share.flatten() > 0).nonzero().squeeze(1)
        rows = (patches.flatten(0, 1).index_select(0, places) - self.centre) / self.scale
        return torch.zeros_like(patches).flatten(0, 1).index_copy(0, places, self._residual(rows)).view_as(patches)

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

    def make_room(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Make room for the patches of a checkpoint; those from before there were any have none.

        Args:
            state_dict: Of a model; gets empty buffers if it has none.
            prefix: What their names begin with.

        Raises:
            ValueError: If the patches belong to another description of regions than this version's.
        """
        make_room(self, ("patches", "centre", "scale", "description"), state_dict, prefix)
        saved = state_dict[prefix + "description"].tolist()
        if len(state_dict[prefix + "patches"]) and saved != [DESCRIPTION]:
            msg = (
                "The checkpoint was made with normal images by another version of anomalib_ncd, whose classes fit no "
                "description of regions that this one has; discover the classes again, or go on with that version."
            )
            raise ValueError(msg)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        self.make_room(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
