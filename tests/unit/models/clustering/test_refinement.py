# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.models.clustering.refinement import constrained, refine_prototypes, spread_corrections


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


def test_corrections_reach_regions_that_are_alike_and_no_others():
    features, labels = blobs()
    prior = np.full((len(labels), 4), 0.05) + 0.8 * np.eye(4)[labels]
    nothing = np.ones_like(prior, dtype=bool)
    assert spread_corrections(features, prior, nothing) == pytest.approx(prior)
    agreeing, opposed = nothing.copy(), nothing.copy()
    agreeing[:12] = np.arange(4) == 0
    opposed[:12] = np.arange(4) == 3
    assert (spread_corrections(features, prior, agreeing).argmax(axis=1) == labels).all()
    found = spread_corrections(features, prior, opposed).argmax(axis=1)
    assert (found[:12] == 3).all()
    assert (found[labels == 0] == 3).mean() > 0.8
    assert (found[labels > 0] == labels[labels > 0]).all()


def test_what_a_region_is_not_is_taken_away_from_regions_like_it():
    features, labels = blobs()
    prior = np.where(np.eye(3)[labels] > 0, 0.5, 0.25)
    allowed = np.ones_like(prior, dtype=bool)
    allowed[:8, 0] = False
    assert (spread_corrections(features, prior, allowed)[labels == 0, 0] < 0.4).mean() > 0.9


def test_regions_that_look_alike_follow_too():
    looks, labels = blobs()
    prior = np.tile([0.6, 0.2, 0.2], (len(labels), 1))
    allowed = np.ones_like(prior, dtype=bool)
    for region in range(0, len(labels), 10):
        allowed[region] = np.arange(3) == labels[region]
    features = np.random.default_rng(0).normal(size=(len(labels), 40))  # say nothing
    right = [
        (spread_corrections(features, prior, allowed, appearance).argmax(axis=1) == labels).mean()
        for appearance in (None, looks)
    ]
    assert right[0] < 0.8
    assert right[1] > 0.9


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_regions_are_enough(count):
    allowed = np.ones((count, 2), dtype=bool)
    allowed[0, 0] = False
    found = spread_corrections(np.eye(3)[:count], np.full((count, 2), 0.5), allowed)
    assert found[0].tolist() == [0, 1]
    assert found[1:] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("rows", [4, 6])
def test_shapes_that_do_not_agree_are_refused(rows):
    with pytest.raises(ValueError, match="must be"):
        refine_prototypes(np.ones((5, 2)), np.ones((rows, 2)), np.ones((5, 2), bool))
    with pytest.raises(ValueError, match="must be"):
        refine_prototypes(np.ones((5, 2)), np.ones((5, 2)), np.zeros((5, 2), bool))


def test_example_of_spread_corrections():
    rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0], [0.1, 1.1]])
    allowed = np.array([[True, True]] * 2 + [[False, True]] * 3 + [[True, True]])
    np.testing.assert_array_equal(
        spread_corrections(rows, np.tile([1.0, 0.0], (6, 1)), allowed).argmax(axis=1), np.array([0, 0, 1, 1, 1, 1])
    )


def test_example_of_refine_prototypes():
    rows, even = np.eye(3), np.full((3, 2), 0.5)
    allowed = np.array([[True, False], [False, True], [True, True]])
    assert (rows @ refine_prototypes(rows, even, allowed).T)[:2].argmax(axis=1).tolist() == [0, 1]
