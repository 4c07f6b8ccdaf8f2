# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Class discovery without training: clusters of the frozen, mask-guided features.

The line that training has to beat, and often enough on its own.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.models.clustering.clustering import ClusterMethod, cluster_centres, cluster_features
from anomalib_ncd.models.clustering.normal_cluster import find_cluster_of_normal, find_normal_cluster, with_slot_first
from anomalib_ncd.models.clustering.number_of_classes import estimate_num_classes
from anomalib_ncd.models.heads import unit_rows
from anomalib_ncd.models.known_regions import classify_encoded, encode_images, features_of, references_of
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.models.normal.normal_comparison import compare_with_normal
from anomalib_ncd.models.normal.normal_patches import NormalPatches


def discover_by_clustering(
    model: AnomalyNcd,
    datamodule: NcdDataModule,
    method: ClusterMethod = "ward",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[NcdBatch]:
    """Cluster all regions, make the model a classifier by their centres, and predict every image with it.

    Afterwards the model classifies new images as a trained one does, with ``Engine.predict``. The centres become the
    prototypes of its heads.

    Where the datamodule has normal images, regions are described by what sets them apart from those, and the detector's
    scores stretch what is clustered, see :class:`~anomalib_ncd.models.normal.normal_patches.NormalPatches`. The
    cluster that normal regions belong to is *normal* and has slot 0. Without such images, or where none looks like
    them, it is the one that the detector clearly scores low. Where there is none either, all slots are defects.

    Predictions are those of the centres, not the clusters themselves, so that an image has the same class in the run
    and whenever it comes again, with a confidence that means the same. It matters for regions between two clusters
    alone. On MTD-mini, with features of one layer, 6 to 8 % of the regions of Ward's clusters and at most 2 % of
    k-means' lie nearer to another centre; the NMI of the images is 0.39 instead of 0.40 (Ward) and 0.39 instead of
    0.38 (k-means) with EfficientNet-Lite0, and 0.31 instead of 0.29 and 0.29 instead of 0.30 with DeiT-Tiny. On
    generated images no region changes.

    Args:
        model: Gives the encoder, the number of classes and the merging temperature; gets the prototypes and the score
            range of the maps. The encoder stays as it is.
        datamodule: Images with their regions.
        method: See :func:`~anomalib_ncd.models.clustering.clustering.cluster_features`.
        seed: Seed of the clusters.
        device: Where the features are computed.

    Returns:
        Batches as ``Engine.predict`` would return them.
    """
    model.eval().to(device)
    known_normal = compare_with_normal(model, datamodule, seed)
    encoded = encode_images(model, tqdm(datamodule.test_dataloader(), desc="Extracting features", unit="batch"))
    references, image_index = references_of(encoded)
    features, scores = features_of(encoded)
    clustered = features if known_normal is None else NormalPatches.stretched(features, scores)
    if not model.knows_num_classes:
        model.take_estimate(estimate_num_classes(clustered, seed=seed))
    labels = cluster_features(clustered, model.num_novel_classes, method, seed=seed)
    areas = torch.cat([batch.region_area for batch in encoded])
    normal = _normal_cluster(labels, features, scores, areas, known_normal)
    if normal is not None:
        labels = with_slot_first(labels, normal)
    centres = cluster_centres(features, torch.as_tensor(labels), model.num_novel_classes)
    _classify_by(model, centres, has_normal_slot=normal is not None)
    model.rejection.fit(references, image_index)
    if datamodule.fitted_score_range is not None:
        model.score_range.copy_(torch.tensor(datamodule.fitted_score_range))
        model.region_settings = datamodule.region_settings
    return [classify_encoded(batch, model) for batch in encoded]


def _normal_cluster(
    labels: np.ndarray,
    features: torch.Tensor,
    scores: torch.Tensor,
    areas: torch.Tensor,
    known_normal: torch.Tensor | None,
) -> int | None:
    """The cluster of normal regions: by known-normal ones where there are any, else by the detector's scores."""
    normal = None
    if known_normal is not None:
        centres = cluster_centres(features, torch.as_tensor(labels), int(labels.max()) + 1)
        normal_labels = (unit_rows(known_normal) @ centres.T).argmax(dim=1).numpy()
        lengths, normal_lengths = (NormalPatches.lengths(rows).numpy() for rows in (features, known_normal))
        normal = find_cluster_of_normal(lengths, labels, normal_lengths, normal_labels)
    if normal is None:
        normal = find_normal_cluster(labels, scores.numpy(), areas.numpy())
    return normal


def _classify_by(model: AnomalyNcd, prototypes: torch.Tensor, *, has_normal_slot: bool) -> None:
    """Put prototypes ``(K, D)`` in the place of what training would have learnt."""
    model.set_base_classes([])
    model.has_normal_slot, model.made_from_clusters = has_normal_slot, True
    model.class_names = model.novel_class_names
    model.model.heads.weight.data.copy_(prototypes.expand_as(model.model.heads.weight))
    model.best_head.zero_()
    model.eval()
