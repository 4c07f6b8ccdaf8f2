# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.models.clustering.refinement import constrained, correction_weights, refine_prototypes


def blobs(per_class=40, width=8, seed=0, noise=0.25):
    """Three groups of directions and their numbers."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    return np.eye(width)[labels] + rng.normal(0, noise, (len(labels), width)), labels


def classes(features, prototypes):
    return (features / np.linalg.norm(features, axis=1, keepdims=True) @ prototypes.T).argmax(axis=1)


def test_without_corrections_clusters_stay():
    features, labels = blobs()
    prior = np.eye(3)[labels] * 0.9 + 0.1 / 3
    prototypes = refine_prototypes(features, prior, np.ones_like(prior, dtype=bool))
    assert np.linalg.norm(prototypes, axis=1) == pytest.approx(1)
    assert (classes(features, prototypes) == labels).mean() > 0.97


def test_a_cluster_of_two_kinds_is_parted_by_a_few_corrections():
    features, labels = blobs()
    prior = np.zeros((len(labels), 3))
    prior[np.arange(len(labels)), np.where(labels == 2, 1, labels)] = 1  # nothing points to the last class
    allowed = np.ones_like(prior, dtype=bool)
    for region in (*np.flatnonzero(labels == 2)[:4], *np.flatnonzero(labels == 1)[:2]):
        allowed[region] = np.arange(3) == labels[region]
    prototypes = refine_prototypes(features, prior, allowed)
    assert (classes(features, prototypes) == labels).mean() > 0.9


def test_a_class_that_nothing_points_to_gets_no_region():
    features, labels = blobs()
    prior = np.eye(4)[labels]
    prototypes = refine_prototypes(features, prior, np.ones_like(prior, dtype=bool))
    assert 3 not in classes(features, prototypes)


def test_order_of_regions_does_not_matter():
    features, labels = blobs()
    prior, order = np.eye(3)[labels] * 0.8 + 0.2 / 3, np.random.default_rng(1).permutation(len(labels))
    allowed = np.ones_like(prior, dtype=bool)
    allowed[:3] = np.eye(3, dtype=bool)
    there = refine_prototypes(features[order], prior[order], allowed[order])
    assert there == pytest.approx(refine_prototypes(features, prior, allowed), abs=1e-3)


def test_constraints():
    probabilities = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])
    allowed = np.array([[True, True, True], [False, True, True], [False, False, True]])
    expected = [[0.5, 0.3, 0.2], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]
    assert constrained(probabilities, allowed) == pytest.approx(np.array(expected))


def test_clusters_count_more_where_corrections_agree_with_them():
    features, prior = np.tile([[1.0, 0.0], [0.0, 1.0]], (50, 1)), np.tile([[0.9, 0.1]], (100, 1))
    nothing, agreeing, opposed = (np.ones((100, 2), bool) for _ in range(3))
    agreeing[:40, 1] = False
    opposed[:40:2, 0] = False  # the first of the two kinds alone
    assert correction_weights(features, prior, nothing) == pytest.approx(0.45)
    assert correction_weights(features, prior, agreeing)[:40] == pytest.approx(1)
    assert correction_weights(features, prior, agreeing)[40:].min() > 150 / 60
    first, second = correction_weights(features, prior, opposed)[40:42]
    assert first < 0.01
    assert second == pytest.approx(20 / 80, rel=0.02)


@pytest.mark.parametrize("rows", [4, 6])
def test_shapes_that_do_not_agree_are_refused(rows):
    with pytest.raises(ValueError, match="must be"):
        refine_prototypes(np.ones((5, 2)), np.ones((rows, 2)), np.ones((5, 2), bool))
    with pytest.raises(ValueError, match="must be"):
        refine_prototypes(np.ones((5, 2)), np.ones((5, 2)), np.zeros((5, 2), bool))
