# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Normal images for a model: its encoder compares regions with their patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.normal_regions import MAX_NORMAL_REGIONS, NormalRegions
from anomalib_ncd.data.transforms import EvalView

if TYPE_CHECKING:
    from anomalib_ncd.models.build_encoder import Encoder
    from anomalib_ncd.models.lightning_model import AnomalyNcd

BATCH_SIZE = 16


@torch.no_grad()
def compare_with_normal(model: AnomalyNcd, datamodule: NcdDataModule, seed: int = 0) -> Tensor | None:
    """Let a model's encoder describe regions by what sets them apart from normal images, if there are any.

    Up to 300 regions of the normal images give the patches. Half of them are described, too, compared with the other
    images alone: what is left between normal and normal.

    Args:
        model: Model that has not seen regions yet; its encoder is changed, and its heads no longer fit.
        datamodule: Gives the normal images, and the shapes of the regions.
        seed: Seed of the choice of patches.

    Returns:
        Features ``(N, D)`` of normal regions, on the CPU; none where there is but one normal image. ``None`` where the
        datamodule has no normal images, and the model is as it was.
    """
    regions = datamodule.normal_regions(MAX_NORMAL_REGIONS)
    if regions is None:
        return None
    encoder = model.model.encoder
    patches, shares = _encode(model, regions, datamodule.image_size)
    is_first_half = torch.tensor([regions.image_index(number) % 2 == 0 for number in range(len(regions))])
    held_out = torch.zeros(0, encoder.normal_patches.feature_dim)
    if is_first_half.any() and not is_first_half.all():
        _keep(encoder, patches[is_first_half], shares[is_first_half], seed)
        described = encoder.normal_patches(patches[~is_first_half], shares[~is_first_half])
        held_out = encoder.normal_patches.feature(described).cpu()
    _keep(encoder, patches, shares, seed)
    return held_out


def _encode(model: AnomalyNcd, regions: NormalRegions, image_size: int) -> tuple[Tensor, Tensor]:
    """Patches ``(R, N, D)`` of regions and their shares ``(R, N, 1)``, on the model's device."""
    view, parts = EvalView(image_size), []
    with tqdm(total=len(regions), desc="Encoding normal regions", unit="region") as progress:
        for start in range(0, len(regions), BATCH_SIZE):
            numbers = range(start, min(start + BATCH_SIZE, len(regions)))
            views = [view(*regions[number]) for number in numbers]
            images, masks = (torch.stack(part).to(model.device) for part in zip(*views, strict=True))
            parts.append(model.model.encoder.compared_patches(model.normalised(images), masks))
            progress.update(len(numbers))
    return torch.cat([patches for patches, _ in parts]), torch.cat([shares for _, shares in parts])


def _keep(encoder: Encoder, patches: Tensor, shares: Tensor, seed: int) -> None:
    """Compare with the patches of regions from now on."""
    encoder.normal_patches.fit(patches[shares[..., 0] > 0], seed)
