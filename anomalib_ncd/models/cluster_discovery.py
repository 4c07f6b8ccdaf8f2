# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Class discovery without training: clusters of the frozen, mask-guided features.

The line that training has to beat, and often enough on its own.
"""

from __future__ import annotations

from typing import Literal

import torch
from tqdm import tqdm

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.functional.region_merging import merge_regions
from anomalib_ncd.models.clustering import cluster_features
from anomalib_ncd.models.lightning_model import AnomalyNcd


def discover_by_clustering(
    model: AnomalyNcd,
    datamodule: NcdDataModule,
    method: Literal["ward", "kmeans"] = "ward",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[NcdBatch]:
    """Cluster all regions and merge their clusters into a class per image.

    Clusters have no *normal* slot and no probabilities: a region belongs to its cluster with confidence 1.

    Args:
        model: Gives the encoder, the number of classes and the merging temperature; nothing of it is trained.
        datamodule: Images with their regions.
        method: Ward's hierarchical clustering or k-means.
        seed: Seed of k-means.
        device: Where the features are computed.

    Returns:
        Batches as ``Engine.predict`` would return them.
    """
    batches, features = [], []
    model.eval().to(device)
    for batch in tqdm(datamodule.test_dataloader(), desc="Extracting features", unit="batch"):
        with torch.no_grad():
            found = model.region_features(batch.image.to(model.device), batch.region_mask.to(model.device))
        features.append(found.float().cpu())
        batches.append(batch.without_pixels().update(region_feature=features[-1]))
    labels = torch.as_tensor(
        cluster_features(torch.cat(features), model.num_novel_classes, method, seed=seed),
    )
    by_region = torch.nn.functional.one_hot(labels.long(), model.num_novel_classes).float()
    counts = [len(batch.region_image_index) for batch in batches]
    return [
        batch.with_predictions(
            probabilities,
            merge_regions(
                probabilities,
                batch.region_area,
                batch.region_image_index,
                model.merging_temperatures(batch.image_size),
                num_images=batch.batch_size,
            ),
        )
        for batch, probabilities in zip(batches, by_region.split(counts), strict=True)
    ]
