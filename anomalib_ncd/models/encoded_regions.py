# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions that are encoded once: for the number of classes, the start of training, rejection and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch

from anomalib_ncd.data.batches import NcdBatch

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Describe: TypeAlias = Callable[[NcdBatch], Pair]


def encode_images(describe: Describe, batches: Iterable[NcdBatch]) -> list[NcdBatch]:
    """Run an encoder over images.

    Args:
        describe: Gives the features ``(R, D)`` and the references ``(R, E)`` of a batch's regions.
        batches: Images with the views of their regions.

    Returns:
        The images without pixels, on the CPU, with ``region_feature`` and ``region_reference``.
    """
    encoded = []
    for batch in batches:
        with torch.no_grad():
            feature, reference = describe(batch)
        described = {"region_feature": feature.float().cpu(), "region_reference": reference.float().cpu()}
        encoded.append(batch.without_pixels().update(**described))
    return encoded


def views_of(batch: NcdBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """What a describer takes: views of regions, their masks, views of whole images, if any, and which each lies in.

    Args:
        batch: Images with the views of their regions.

    Raises:
        ValueError: If the batch has no views.
    """
    if batch.image is None or batch.region_mask is None:
        msg = "The batch holds no views; it seems to have been predicted before. Load the images again."
        raise ValueError(msg)
    return batch.image, batch.region_mask, batch.whole_image, batch.region_image_index


def features_of(encoded: Sequence[NcdBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features ``(R, D)`` and anomaly scores ``(R,)`` of all regions, as clusters take them.

    Args:
        encoded: Of :func:`encode_images`.

    Raises:
        ValueError: If a batch has no features.
    """
    whole = NcdBatch.collate(encoded)
    return given(whole.region_feature, "The images hold no features of their regions"), whole.region_score


def references_of(encoded: Sequence[NcdBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    """What :meth:`RegionRejection.fit` takes: references ``(N, E)`` and the number ``(N,)`` of each region's image.

    Args:
        encoded: Of :func:`encode_images`.

    Raises:
        ValueError: If a batch has no references.
    """
    whole = NcdBatch.collate(encoded)
    return given(whole.region_reference, "A batch holds no references of its regions"), whole.region_image_index


def given(rows: torch.Tensor | None, otherwise: str) -> torch.Tensor:
    """What :func:`encode_images` fills in, or an error that says what is lacking."""
    if rows is None:
        msg = f"{otherwise}; pass what `encode_images` returns."
        raise ValueError(msg)
    return rows
