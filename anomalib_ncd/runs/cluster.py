# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Class discovery without training: clusters of the frozen, mask-guided features."""

import logging

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.datasets import MAX_NORMAL_REGIONS
from anomalib_ncd.models.clustering.clustering import cluster_centres, cluster_features, unit_rows
from anomalib_ncd.models.clustering.normal_cluster import find_cluster_of_normal, find_normal_cluster, with_slot_first
from anomalib_ncd.models.clustering.number_of_classes import estimate_num_classes
from anomalib_ncd.models.describer import describer_for
from anomalib_ncd.models.encoded_regions import rows_of
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.settings import MIN_NORMAL_IMAGES

logger = logging.getLogger(__name__)

SHARE_OF_NORMAL = 0.1
"""Known-normal regions that are clustered with the others, as a share of these."""


def discover_by_clustering(
    model: AnomalyNcd, datamodule: NcdDataModule, seed: int = 0, device: torch.device | str = "cpu"
) -> list[NcdBatch]:
    """Cluster all regions, make the model a classifier by their centres, and predict every image with it.

    Where the datamodule has normal images, twelve or more, regions are described by what sets them apart from those,
    see :class:`~anomalib_ncd.models.describer.NormalResiduals`, and clustered together with known-normal ones: the
    cluster of these is *normal*, slot 0, if they lie inside of it. Else they are described on their own, and it is the
    cluster that the detector clearly scores low.
    Where there is none, images without a region are *normal* if they are many, and then counted as one of the classes;
    else all slots are defects.

    Predictions are those of the centres, not the clusters themselves, so that an image has the same class in the run
    and whenever it comes again. They come in batches as ``Engine.predict`` would return them. The model gives the
    encoder, the number of classes and the merging temperature, and gets describer, prototypes and score range.
    """
    datamodule.setup()
    model.describe_by(describer_for(0 if datamodule.normal_images is None else len(datamodule.normal_records)))
    model.eval().to(device).forget_regions()
    datamodule.prepare_for(model.inputs)
    known_normal = _compare_with_normal(model, datamodule, seed)
    encoded = model.encode(datamodule)
    features, scores, references, image_index = rows_of(encoded)
    rows = torch.cat([features, _some(known_normal, SHARE_OF_NORMAL * len(features))])
    estimate = estimate_num_classes(rows, seed=seed) if model.slots.num_novel is None else None
    count = model.slots.num_classes if estimate is None else estimate.count
    labels = cluster_features(rows, count)
    normal = find_cluster_of_normal(unit_rows(rows).numpy(), labels, len(features))
    if normal is None and len(rows) > len(features):
        rows, labels = features, cluster_features(features, count)
    if normal is None:
        areas = torch.cat([batch.region_area for batch in encoded])
        normal = find_normal_cluster(labels, scores.numpy(), areas.numpy())
    num_images = sum(len(batch.image_path) for batch in encoded)
    num_empty = num_images - len(set(image_index.tolist()))
    if normal is not None:
        labels = with_slot_first(labels, normal)
    elif count > 1 and 2 * count * num_empty >= num_images:
        # Images without a region, at least half as many as a class has, are *normal*, of which there is no cluster.
        if estimate is not None and not len(known_normal):
            estimate, count = estimate.with_normal(), count + 1
        labels, normal = 1 + cluster_features(features, count - 1), 0
    if estimate is not None:
        model.set_num_classes(estimate)
    centres = cluster_centres(rows, torch.as_tensor(labels), count)
    model.model.set_prototypes(centres, has_normal=normal is not None)
    model.take_regions(datamodule, references, image_index)
    return [model.model.classify_encoded(batch) for batch in encoded]


def _compare_with_normal(model: AnomalyNcd, datamodule: NcdDataModule, seed: int) -> torch.Tensor:
    """Let a describer that compares with normal images see them: features of known-normal regions, none for others."""
    describer, regions = model.model.describer, datamodule.normal_regions(MAX_NORMAL_REGIONS)
    if describer.needs_whole_images and regions is not None:
        return describer.fit(regions, [record.path for record in regions.images], seed)
    if regions is not None:
        text = "Regions are compared with good images where there are %d or more; %d would tell too little. Give more."
        logger.warning(text, MIN_NORMAL_IMAGES, len(regions.images))
    return torch.zeros(0, describer.feature_dim)


def _some(rows: torch.Tensor, count: float) -> torch.Tensor:
    """So many of the rows, spread evenly, as far as there are."""
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), max(1, round(count))))
    return rows[torch.as_tensor(chosen).long()]
