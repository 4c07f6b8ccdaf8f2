# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.functional.region_merging import merge_regions
from anomalib_ncd.models import cluster_discovery
from anomalib_ncd.models.cluster_discovery import discover_by_clustering


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AnomalyNcd(backbone="test_vit", pretrained=False, mask_layers=3, num_novel_classes=3)


def data(run, **arguments):
    return NcdDataModule(run.images, run.anomaly_maps, **arguments)


def classes(batches, name="pred_class_id"):
    return torch.cat([getattr(batch, name) for batch in batches]).tolist()


@pytest.mark.parametrize("method", ["ward", "kmeans"])
def test_every_image_and_region_gets_a_class(model, tiny_run, method):
    module = data(tiny_run, eval_batch_size=7)
    batches = discover_by_clustering(model, module, method)
    assert [len(batch) for batch in batches] == [7, 7, 4]
    assert [path for batch in batches for path in batch.image_path] == [str(r.path) for r in module.records]
    assert set(classes(batches, "region_pred_class_id")) == {0, 1, 2}
    assert len(classes(batches, "region_pred_class_id")) == len(module.region_table())
    assert all((batch.region_pred_class_score == 1).all() for batch in batches)
    assert all(batch.image is None for batch in batches)


def test_images_get_the_classes_of_their_regions(model, tiny_run):
    for batch in discover_by_clustering(model, data(tiny_run)):
        expected = merge_regions(
            batch.region_class_probabilities,
            batch.region_area,
            batch.region_image_index,
            model.merging_temperatures(batch.image_size),
            num_images=len(batch),
        )
        torch.testing.assert_close(batch.class_probabilities, expected)


def test_batch_size_does_not_matter(model, tiny_run):
    expected = classes(discover_by_clustering(model, data(tiny_run)))
    assert classes(discover_by_clustering(model, data(tiny_run, eval_batch_size=1))) == expected


def test_lines_and_squares_fall_apart(model, tiny_run):
    found = np.array(classes(discover_by_clustering(model, data(tiny_run))))
    line, square = found[6:12], found[12:]
    assert np.bincount(line).argmax() != np.bincount(square).argmax()


def test_nothing_is_trained(model, tiny_run):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    discover_by_clustering(model, data(tiny_run))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True)


def test_method_seed_and_number_of_classes_are_passed_on(model, tiny_run, monkeypatch):
    seen = {}

    def cluster(features, num_clusters, method, *, seed):
        seen.update(features=features, num_clusters=num_clusters, method=method, seed=seed)
        return np.zeros(len(features), np.int64)

    monkeypatch.setattr(cluster_discovery, "cluster_features", cluster)
    batches = discover_by_clustering(model, data(tiny_run, eval_batch_size=7), "kmeans", seed=5)
    features = seen.pop("features")
    assert features.shape[1] == 64
    assert seen == {"num_clusters": 3, "method": "kmeans", "seed": 5}
    assert torch.equal(torch.cat([batch.region_feature for batch in batches]), features)


def test_more_classes_than_regions_leave_classes_empty(tiny_run):
    model = AnomalyNcd(backbone="test_vit", pretrained=False, mask_layers=3, num_novel_classes=50)
    batches = discover_by_clustering(model, data(tiny_run))
    assert batches[0].class_probabilities.shape == (18, 50)


def test_a_single_image_is_one_class(model, tiny_run):
    module = NcdDataModule(tiny_run.images / "square" / "000.png", tiny_run.anomaly_maps / "square")
    [batch] = discover_by_clustering(model, module)
    assert batch.pred_class_id.tolist() == [0]
