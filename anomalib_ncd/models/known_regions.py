# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions that are encoded once: for clusters, for what a run knows, and for predictions from their features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.datasets import EvalImages

if TYPE_CHECKING:
    from anomalib_ncd.models.lightning_model import AnomalyNcd


def encode_images(model: AnomalyNcd, batches: Iterable[NcdBatch]) -> list[NcdBatch]:
    """Run the encoder over images.

    Args:
        model: Gives the encoder, which runs in the model's mode and on its device.
        batches: Images with the views of their regions.

    Returns:
        The images without pixels, on the CPU, with ``region_feature`` and ``region_reference``.

    Raises:
        ValueError: If a batch has no views.
    """
    encoded = []
    for batch in batches:
        with torch.no_grad():
            found, reference = model.describe_regions(*views_of(batch, model.device))
        known = {"region_feature": found.float().cpu(), "region_reference": reference.float().cpu()}
        encoded.append(batch.without_pixels().update(**known))
    return encoded


def views_of(
    batch: NcdBatch, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Views of regions, their masks, and views of the whole images that they lie in, if the batch has any.

    Args:
        batch: Images with the views of their regions.
        device: Where they are wanted. Defaults to ``None``: where they are.

    Raises:
        ValueError: If the batch has no views.
    """
    if batch.image is None or batch.region_mask is None:
        msg = "The batch holds no views; it seems to have been predicted before. Load the images again."
        raise ValueError(msg)
    image, mask, whole = batch.image.to(device), batch.region_mask.to(device), batch.region_whole_image
    return image, mask, None if whole is None else whole.to(device)


def classify_encoded(batch: NcdBatch, model: AnomalyNcd) -> NcdBatch:
    """Predict images from the features of their regions, as :meth:`AnomalyNcd.classify` does from their views.

    Args:
        batch: Of :func:`encode_images`; changed in place.
        model: Its heads, names and known regions decide.

    Returns:
        The batch.

    Raises:
        ValueError: If the batch has no features.
    """
    features = _given(batch.region_feature, "The batch holds no features of its regions")
    with torch.no_grad():
        logits = model.model.heads(features.to(model.device))[model.best_head]
    return model.classify_logits(batch, logits.float().cpu())


def features_of(encoded: Sequence[NcdBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features ``(R, D)`` and anomaly scores ``(R,)`` of all regions, as clusters take them.

    Args:
        encoded: Of :func:`encode_images`.

    Raises:
        ValueError: If a batch has no features.
    """
    whole = NcdBatch.collate(encoded)
    return _given(whole.region_feature, "The images hold no features of their regions"), whole.region_score


def references_of(encoded: Sequence[NcdBatch]) -> tuple[torch.Tensor, torch.Tensor]:
    """What :meth:`RegionRejection.fit` takes: references ``(N, E)`` and the number ``(N,)`` of each region's image.

    Args:
        encoded: Of :func:`encode_images`.

    Raises:
        ValueError: If a batch has no references.
    """
    whole = NcdBatch.collate(encoded)
    return _given(whole.region_reference, "A batch holds no references of its regions"), whole.region_image_index


def known_regions(model: AnomalyNcd, datamodule: NcdDataModule) -> list[NcdBatch]:
    """All images whose regions a model is about to be trained on, whatever process asks, as :func:`encode_images`.

    The references come from the frozen part, in single precision and of the views that predictions are made from.
    Training changes nothing about them, so a new region is compared with the run's just as these are with each other.

    Args:
        model: Gives the encoder.
        datamodule: Gives the regions.

    Returns:
        The images without pixels.
    """
    loader = DataLoader(
        EvalImages(datamodule.region_table(), None, datamodule.image_size),
        datamodule.eval_batch_size,
        num_workers=datamodule.num_workers,
        collate_fn=NcdBatch.collate,
    )
    with torch.random.fork_rng(devices=[]):  # a loader draws a seed, and training must not depend on it
        return encode_images(model, tqdm(loader, desc="Encoding regions", unit="batch"))


def _given(rows: torch.Tensor | None, otherwise: str) -> torch.Tensor:
    """What :func:`encode_images` fills in, or an error that says what is lacking."""
    if rows is None:
        msg = f"{otherwise}; pass what `encode_images` returns."
        raise ValueError(msg)
    return rows
