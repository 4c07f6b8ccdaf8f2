# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from anomalib_ncd.models.clustering.clustering import cluster_features

METHODS = ["ward", "kmeans"]


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat(np.arange(3), 15))
    return np.eye(6)[truth] * 4 + rng.normal(0, 0.3, (45, 6)), truth


@pytest.mark.parametrize("method", METHODS)
def test_clear_groups_are_found(blobs, method):
    features, truth = blobs
    labels = cluster_features(features, 3, method)
    assert labels.dtype == np.int64
    assert adjusted_rand_score(truth, labels) == 1


def test_ward_is_scikit_learns_on_unit_rows():
    features = np.random.default_rng(0).normal(size=(40, 5))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = AgglomerativeClustering(n_clusters=4, linkage="ward").fit_predict(unit)
    assert adjusted_rand_score(expected, cluster_features(features, 4)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_labels_do_not_depend_on_norm_type_or_order(blobs, method):
    features, _ = blobs
    labels = cluster_features(features, 3, method)
    np.testing.assert_array_equal(cluster_features(features * 50, 3, method), labels)
    tensor = torch.from_numpy(features).float().requires_grad_()
    np.testing.assert_array_equal(cluster_features(tensor, 3, method), labels)
    order = np.random.default_rng(1).permutation(len(features))
    assert adjusted_rand_score(labels[order], cluster_features(features[order], 3, method)) == 1


def test_labels_are_numbered_as_they_appear(blobs):
    _, first = np.unique(cluster_features(blobs[0], 3), return_index=True)
    assert list(first) == sorted(first)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_labels(method):
    features = np.random.default_rng(0).normal(size=(40, 5))
    first, second = (cluster_features(features, 5, method, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_distinct_regions_than_clusters(method, caplog):
    features = np.array([[1.0, 0], [0, 1], [1, 0], [2, 0]])
    with caplog.at_level(logging.WARNING, logger="anomalib_ncd"):
        labels = cluster_features(features, 3, method)
    assert labels.tolist() == [0, 1, 0, 0]
    assert "Only 2 distinct regions for 3 clusters" in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_none_one_and_equal_regions(method):
    for features, expected in ((np.zeros((0, 4)), []), (np.ones((1, 4)), [0]), (np.ones((3, 4)), [0, 0, 0])):
        assert cluster_features(features, 2, method).tolist() == expected


def test_one_cluster(blobs):
    assert not cluster_features(blobs[0], 1).any()


def test_bfloat16_features_are_taken(blobs):
    labels = cluster_features(torch.from_numpy(blobs[0]).bfloat16(), 3)
    assert adjusted_rand_score(blobs[1], labels) == 1


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_broken_features_are_refused(blobs, broken):
    features, _ = blobs
    features[7, 2] = broken
    with pytest.raises(ValueError, match=r"`features` must be finite.*rows \[7\]"):
        cluster_features(features, 3)


def test_wrong_arguments(blobs):
    with pytest.raises(ValueError, match=r"shape \(R, D\), got \(6,\)"):
        cluster_features(np.zeros(6), 2)
    with pytest.raises(ValueError, match="`num_clusters` must be at least 1, got 0"):
        cluster_features(blobs[0], 0)
    with pytest.raises(ValueError, match=r"`method` must be one of \('kmeans', 'ward'\), got 'dbscan'"):
        cluster_features(blobs[0], 2, "dbscan")
