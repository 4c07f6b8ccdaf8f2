# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Facts of a run: what its maps, images and regions tell without labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.metrics.facts import (
    detector_separation,
    image_cells,
    map_cells,
    own_image_share,
    pairwise_agreement,
    peak_height,
    resampled_clusterings,
    same_place_share,
)
from anomalib_ncd.models.clustering.clustering import cluster_features
from anomalib_ncd.models.describer import score_weighted_residuals
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.maps import read_anomaly_map

MAX_IMAGES = 64
"""Of more images and maps, so many are looked at."""


def discovery_facts(batch: NcdBatch, datamodule: NcdDataModule) -> dict[str, float]:
    """What is known once classes were discovered, under the names of :data:`~anomalib_ncd.metrics.facts.FACTS`.

    Numbers without meaning for the run are left out.
    """
    facts = {**_map_facts(datamodule), **_cluster_facts(batch, datamodule.normal_images is not None)}
    return {name: value for name, value in facts.items() if not math.isnan(value)}


def images_with_region(batch: NcdBatch) -> float:
    """Share of the images that have a region with a mask; NaN without images."""
    found = batch.region_image_index[batch.region_area > 0].unique()
    return len(found) / len(batch) if len(batch) else float("nan")


def _map_facts(datamodule: NcdDataModule) -> dict[str, float]:
    """Facts of maps, on some of the images."""
    table = datamodule.region_table()
    chosen = _some(len(table.images))
    maps = [read_anomaly_map(datamodule.map_paths[index]) for index in chosen]
    images = [read_image(table.images[index].path, table.settings.bit_depth) for index in chosen]
    cells = np.stack([map_cells(anomaly_map) for anomaly_map in maps])
    facts = {
        "own_image": own_image_share(np.stack([image_cells(image) for image in images]), cells),
        "peak_height": peak_height(maps),
        "same_place": same_place_share(cells),
    }
    normal = _maps_of(datamodule.normal_map_paths)
    if normal:
        facts["same_place_as_normal"] = same_place_share(cells, np.stack([map_cells(one) for one in normal]))
        facts["detector_separation"] = detector_separation(*([one.max() for one in some] for some in (maps, normal)))
    return facts


def _cluster_facts(batch: NcdBatch, has_normal_images: bool) -> dict[str, float]:
    """Agreement of the heads of a trained network, or of clusters of resamples, in the space that was clustered."""
    heads = batch.region_head_class_id
    if heads is not None and heads.shape[1] > 1:
        return {"head_agreement": pairwise_agreement(heads.T.numpy())}
    if batch.region_feature is None or batch.region_pred_class_id is None:
        return {}
    features = batch.region_feature
    if has_normal_images and heads is None:
        features = score_weighted_residuals(features, batch.region_score)
    num_used = len(batch.region_pred_class_id.unique())
    if num_used < 2:
        return {}
    clusterings = resampled_clusterings(
        features.numpy(), lambda part: cluster_features(torch.from_numpy(part), min(num_used, len(part)))
    )
    return {"cluster_agreement": pairwise_agreement(clusterings)}


def _maps_of(paths: Sequence[Path]) -> list[np.ndarray]:
    """Some of the maps."""
    return [read_anomaly_map(paths[index]) for index in _some(len(paths))]


def _some(count: int) -> list[int]:
    """Some of so many, in order; the same ones each time."""
    return sorted(np.random.default_rng(0).permutation(count)[:MAX_IMAGES].tolist())
