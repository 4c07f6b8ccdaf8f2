# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Fits what regions and whole images are compared with to normal images."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from anomalib_ncd.data.datasets import NormalRegions
from anomalib_ncd.models.contrast import contrast
from anomalib_ncd.models.normal.image_novelty import ImageNovelty
from anomalib_ncd.models.normal.normal_patches import NormalPatches
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.views import eval_views, whole_view

BATCH_SIZE = 16
MAX_NORMAL_IMAGES = 1000  # that are compared with as a whole


def fit_to_regions(
    normal_patches: NormalPatches,
    encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    regions: NormalRegions,
    image_size: int,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Fit to the regions of normal images.

    ``encode`` makes patches ``(B, V, N, D)`` of V views of each, and shares ``(B, V, N, 1)``. Half of the regions are
    described, too, compared with the other images alone: what is left between normal and normal, ``(N, 2, D)``, and
    their contrasts ``(N, 1)``; none where there is but one normal image.
    """
    halves: list[list[int]] = [[], []]
    for number in range(len(regions)):
        halves[regions.image_index(number) % 2].append(number)
    kept: dict[int, Tensor] = {}  # what lies in each region
    held_out, contrasts = [torch.zeros(0, 2, normal_patches.dim)], [torch.zeros(0, 1)]
    with tqdm(total=len(regions), desc="Encoding normal regions", unit="region") as progress:
        for half, numbers in enumerate(halves):
            for start in range(0, len(numbers), BATCH_SIZE):
                chosen = numbers[start : start + BATCH_SIZE]
                views, masks = map(torch.from_numpy, eval_views([regions[number] for number in chosen], image_size))
                patches, shares = encode(views, masks)
                kept |= {number: patches[row][shares[row, ..., 0] > 0] for row, number in enumerate(chosen)}
                if half and halves[0]:
                    held_out.append(normal_patches(patches, shares).cpu())
                    contrasts.append(contrast(views, masks))
                progress.update(len(chosen))
            if kept:
                normal_patches.fit(torch.cat([kept[number] for number in sorted(kept)]), seed)
    return torch.cat(held_out), torch.cat(contrasts)


def fit_to_images(
    novelty: ImageNovelty,
    encode: Callable[[Tensor], Tensor],
    paths: Sequence[Path],
    image_size: int,
    seed: int = 0,
    bit_depth: int = 16,
) -> None:
    """Fit to whole normal images, at most 1,000, of which ``encode`` makes patches ``(B, N, D)``."""
    chosen = [paths[number] for number in np.random.default_rng(seed).permutation(len(paths))[:MAX_NORMAL_IMAGES]]

    def batches() -> Iterator[Tensor]:
        with tqdm(total=len(chosen), desc="Encoding normal images", unit="image") as progress:
            for start in range(0, len(chosen), BATCH_SIZE):
                part = chosen[start : start + BATCH_SIZE]
                images = (read_image(path, bit_depth) for path in part)
                yield encode(torch.stack([torch.from_numpy(whole_view(image, image_size)) for image in images]))
                progress.update(len(part))

    novelty.fit(batches(), len(chosen), seed)
