# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Normal images for a model: its encoder compares regions with their patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.images import read_image
from anomalib_ncd.data.normal_regions import MAX_NORMAL_REGIONS
from anomalib_ncd.data.transforms import EvalView
from anomalib_ncd.models.encoders.build_encoder import Encoder
from anomalib_ncd.regions.views import whole_view

Prepare = Callable[[Tensor], Tensor]
"""Views ``(R, 3, S, S)`` uint8 on the CPU as the encoder takes them, where it runs."""

BATCH_SIZE = 16
MAX_NORMAL_IMAGES = 1000
"""Most normal images that are compared with as a whole."""


@torch.no_grad()
def compare_with_normal(encoder: Encoder, prepare: Prepare, datamodule: NcdDataModule, seed: int = 0) -> Tensor | None:
    """Let an encoder describe regions by what sets them apart from normal images, if there are any.

    Up to 300 regions of the normal images give the patches, and up to 1,000 whole images those that whole images are
    compared with. Half of the regions are described, too, compared with the other images alone: what is left between
    normal and normal.

    Args:
        encoder: Encoder that has not seen regions yet; it is changed, and heads that were made for it no longer fit.
        prepare: Makes views fit for the encoder, such as ``AnomalyNcd.prepare``.
        datamodule: Gives the normal images, and the shapes of the regions.
        seed: Seed of the choice of patches.

    Returns:
        Features ``(N, D)`` of normal regions, on the CPU; none where there is but one normal image. ``None`` where the
        datamodule has no normal images, and the encoder is as it was.
    """
    regions = datamodule.normal_regions(MAX_NORMAL_REGIONS)
    if regions is None:
        return None
    normal_patches = encoder.normal_patches
    halves: list[list[int]] = [[], []]
    for number in range(len(regions)):
        halves[regions.image_index(number) % 2].append(number)
    kept: dict[int, Tensor] = {}  # what lies in each region
    held_out = [torch.zeros(0, 2, normal_patches.dim)]
    with tqdm(total=len(regions), desc="Encoding normal regions", unit="region") as progress:
        for half, numbers in enumerate(halves):
            for start in range(0, len(numbers), BATCH_SIZE):
                chosen = numbers[start : start + BATCH_SIZE]
                patches, shares = _encode(
                    encoder, prepare, [regions[number] for number in chosen], datamodule.image_size
                )
                kept |= {number: patches[row][shares[row, :, 0] > 0] for row, number in enumerate(chosen)}
                if half and halves[0]:
                    held_out.append(normal_patches(patches, shares).cpu())
                progress.update(len(chosen))
            if kept:
                normal_patches.fit(torch.cat([kept[number] for number in sorted(kept)]), seed)
    normal_patches.novelty.fit(*_whole_images(encoder, prepare, datamodule, seed), seed)
    rows = torch.cat(held_out)
    novelty = torch.full((len(rows),), 0.0 if normal_patches.novelty.is_fitted else 0.5)
    return normal_patches.feature(normal_patches.beside(rows, novelty)[:, 0])


def _whole_images(
    encoder: Encoder, prepare: Prepare, datamodule: NcdDataModule, seed: int
) -> tuple[Iterator[Tensor], int]:
    """Patches ``(B, N, D)`` of whole normal images in random order, and how many images there are."""
    records = datamodule.normal_records
    chosen = np.random.default_rng(seed).permutation(len(records))[:MAX_NORMAL_IMAGES]
    paths = [records[number].path for number in chosen]

    def batches() -> Iterator[Tensor]:
        with tqdm(total=len(paths), desc="Encoding normal images", unit="image") as progress:
            for start in range(0, len(paths), BATCH_SIZE):
                part = paths[start : start + BATCH_SIZE]
                views = [torch.from_numpy(whole_view(read_image(path), datamodule.image_size)) for path in part]
                yield encoder.whole_patches(prepare(torch.stack(views)))
                progress.update(len(part))

    return batches(), len(paths)


def _encode(
    encoder: Encoder,
    prepare: Prepare,
    crops: Sequence[tuple[np.ndarray, np.ndarray]],
    image_size: int,
) -> tuple[Tensor, Tensor]:
    """Patches ``(R, N, D)`` of regions and their shares ``(R, N, 1)``, on the encoder's device."""
    view = EvalView(image_size)
    views = [view(pixels, mask) for pixels, mask in crops]
    images, masks = (torch.stack(part) for part in zip(*views, strict=True))
    prepared = prepare(images)
    return encoder.compared_patches(prepared, masks.to(prepared.device))
