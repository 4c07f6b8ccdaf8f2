# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Class discovery without training: clusters of the frozen, mask-guided features."""

from __future__ import annotations

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.datasets import MAX_NORMAL_REGIONS
from anomalib_ncd.models.clustering.clustering import cluster_centres, cluster_features, unit_rows
from anomalib_ncd.models.clustering.normal_cluster import find_cluster_of_normal, find_normal_cluster, with_slot_first
from anomalib_ncd.models.clustering.number_of_classes import estimate_num_classes
from anomalib_ncd.models.encoded_regions import rows_of
from anomalib_ncd.models.lightning_model import AnomalyNcd


def discover_by_clustering(
    model: AnomalyNcd, datamodule: NcdDataModule, seed: int = 0, device: torch.device | str = "cpu"
) -> list[NcdBatch]:
    """Cluster all regions, make the model a classifier by their centres, and predict every image with it.

    Where the datamodule has normal images, regions are described by what sets them apart from those, see
    :class:`~anomalib_ncd.models.describer.NormalResiduals`, and the cluster that normal regions belong to is *normal*,
    slot 0. Else it is the cluster that the detector clearly scores low. Where there is none, images without a region
    are *normal* if they are many, and then counted as one of the classes; else all slots are defects.

    Predictions are those of the centres, not the clusters themselves, so that an image has the same class in the run
    and whenever it comes again. They come in batches as ``Engine.predict`` would return them. The model gives the
    encoder, the number of classes and the merging temperature, and gets the prototypes and the score range of the maps.
    """
    model.eval().to(device).forget_regions()
    datamodule.prepare_for(model.inputs)
    normal_features = _compare_with_normal(model, datamodule, seed)
    encoded = model.encode(datamodule)
    features, scores, references, image_index = rows_of(encoded)
    estimate = estimate_num_classes(features, seed=seed) if model.slots.num_novel is None else None
    count = model.slots.num_classes if estimate is None else estimate.count
    labels = cluster_features(features, count)
    normal = None
    if normal_features is not None:
        normal = _cluster_of_normal(labels, features, normal_features)
    if normal is None:
        areas = torch.cat([batch.region_area for batch in encoded])
        normal = find_normal_cluster(labels, scores.numpy(), areas.numpy())
    num_images = sum(len(batch.image_path) for batch in encoded)
    num_empty = num_images - len(set(image_index.tolist()))
    if normal is not None:
        labels = with_slot_first(labels, normal)
    elif count > 1 and 2 * count * num_empty >= num_images:
        # Images without a region, at least half as many as a class has, are *normal*, of which there is no cluster.
        if estimate is not None:
            estimate, count = estimate.with_normal(), count + 1
        labels, normal = 1 + cluster_features(features, count - 1), 0
    if estimate is not None:
        model.set_num_classes(estimate)
    centres = cluster_centres(features, torch.as_tensor(labels), count)
    model.model.set_prototypes(centres, has_normal=normal is not None)
    model.take_regions(datamodule, references, image_index)
    return [model.model.classify_encoded(batch) for batch in encoded]


def _compare_with_normal(model: AnomalyNcd, datamodule: NcdDataModule, seed: int) -> torch.Tensor | None:
    """Fit a describer that compares with normal images: features of known-normal regions, ``None`` for another one."""
    describer, regions = model.model.describer, datamodule.normal_regions(MAX_NORMAL_REGIONS)
    if describer.needs_whole_images != (regions is not None):
        wanted = "frozen_features" if regions is None else "normal_residuals"
        msg = (
            f"`normal_images` is {datamodule.normal_images!r}, but the model's `describer` is "
            f"{model.hparams['describer']!r}; make it with AnomalyNcd(describer={wanted!r})."
        )
        raise ValueError(msg)
    if regions is None:
        return None
    return describer.fit(regions, [record.path for record in datamodule.normal_records], seed)


def _cluster_of_normal(labels: np.ndarray, features: torch.Tensor, normal_features: torch.Tensor) -> int | None:
    """The cluster that known-normal regions belong to, if any."""
    centres = cluster_centres(features, torch.as_tensor(labels), int(labels.max()) + 1)
    own = (unit_rows(features) * centres[torch.as_tensor(labels)]).sum(dim=1)
    nearest = (unit_rows(normal_features) @ centres.T).max(dim=1)
    return find_cluster_of_normal(own.numpy(), labels, nearest.values.numpy(), nearest.indices.numpy())
