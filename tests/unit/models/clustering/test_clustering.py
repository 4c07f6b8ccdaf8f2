# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from anomalib_ncd.models.clustering import clustering as clustering_module
from anomalib_ncd.models.clustering.clustering import (
    cluster_features,
    cluster_prototypes,
    left_out_similarity,
    neighbour_similarity,
)

METHODS = ["ward", "kmeans"]

SIZES = (9, 5, 16)


@pytest.fixture
def rows():
    return F.normalize(torch.randn(23, 5, generator=torch.Generator().manual_seed(0)), dim=1)


def test_the_nearest_counts(rows):
    found = neighbour_similarity(rows[:3], rows[3:]).numpy()
    expected = [max(float(a @ b) for b in rows[3:].double()) for a in rows[:3].double()]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_references_nothing_is_near(rows):
    assert neighbour_similarity(rows, rows[:0]).tolist() == [-1.0] * 23


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_a_group_does_not_see_itself(rows, rows_at_once):
    groups = torch.arange(23) // 3
    found = left_out_similarity(rows, groups, rows_at_once=rows_at_once)
    for index in range(23):
        others = rows[groups != groups[index]]
        assert float(found[index]) == pytest.approx(float((others @ rows[index]).max()), abs=1e-6)


def test_one_group_or_none(rows):
    assert left_out_similarity(rows, torch.zeros(23, dtype=torch.long)).tolist() == [-1.0] * 23
    assert left_out_similarity(rows[:0], torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_shapes_are_checked(rows):
    with pytest.raises(ValueError, match=r"must have shapes \(R, D\) and \(N, D\)"):
        neighbour_similarity(rows, rows[:, :4])
    with pytest.raises(ValueError, match=r"`groups` must have shape \(23,\)"):
        left_out_similarity(rows, torch.zeros(4))


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


def make_regions(sizes=SIZES, width=8):
    """Regions around one axis per class; the class of the last axis has the lowest scores."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    features = F.one_hot(labels, width) + 0.05 * torch.randn(len(labels), width, generator=generator)
    scores = torch.where(labels == len(sizes) - 1, 0.2, 0.8)
    return features, scores, labels


def test_prototypes_are_the_centres():
    features, scores, _ = make_regions()
    prototypes = cluster_prototypes(features, scores, num_classes=3, num_heads=4)
    assert prototypes.shape == (4, 3, 8)
    # Slot 0 has the lowest scores; the others come in order of appearance.
    assert prototypes.argmax(dim=-1).tolist() == [[2, 0, 1]] * 4
    torch.testing.assert_close(prototypes.norm(dim=-1), torch.ones(4, 3))


def test_heads_are_different_opinions_under_the_same_numbers():
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(3))
    scores = torch.rand(60)
    prototypes = cluster_prototypes(features, scores, num_classes=4, num_heads=3, seed=1)
    assert torch.equal(prototypes, cluster_prototypes(features, scores, num_classes=4, num_heads=3, seed=1))
    assert not torch.allclose(prototypes[0], prototypes[1])
    similarity = prototypes[0] @ prototypes[1].T
    assert similarity.diagonal().mean() > (similarity.sum() - similarity.trace()) / 12


def test_fewer_distinct_regions_than_classes():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    prototypes = cluster_prototypes(features, torch.tensor([0.9, 0.9, 0.1]), num_classes=4, num_heads=2)
    assert prototypes.isfinite().all()
    assert (prototypes[:, 2:] @ features.T).max() < 0  # nothing is ever put there


def test_many_regions_start_from_a_sample(monkeypatch):
    features, scores, _ = make_regions((90, 50, 160))
    monkeypatch.setattr(clustering_module, "MAX_CLUSTERED", 100)
    prototypes = cluster_prototypes(features, scores, num_classes=3, num_heads=2, seed=3)
    assert prototypes.argmax(dim=-1)[:, 0].tolist() == [2, 2]
    assert torch.equal(prototypes, cluster_prototypes(features, scores, 3, 2, seed=3))


def test_example_of_cluster_features():
    np.testing.assert_array_equal(
        cluster_features(np.array([[0.0, 1.0], [1.0, 0.1], [0.1, 1.0], [1.0, 0.0]]), num_clusters=2),
        np.array([0, 1, 0, 1]),
    )
