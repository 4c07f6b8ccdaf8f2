# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.models.clustering.normal_cluster import find_cluster_of_normal, find_normal_cluster, with_slot_first

LABELS = np.repeat([0, 1, 2], 10)
AREAS = np.full(30, 20)


def scores(*levels):
    return np.repeat(levels, 10) + np.tile(np.linspace(-0.05, 0.05, 10), 3)


def test_the_cluster_that_scores_clearly_lowest_is_normal():
    assert find_normal_cluster(LABELS, scores(0.8, 0.2, 0.7), AREAS) == 1


def test_without_clear_evidence_none_is():
    assert find_normal_cluster(LABELS, scores(0.8, 0.75, 0.78), AREAS) is None
    assert find_normal_cluster(LABELS, scores(0.9, 0.6, 0.8), AREAS) is None  # lowest, but above 0.3
    assert find_normal_cluster(LABELS, scores(0.3, 0.3, 0.3), AREAS) is None  # low, but no lower than others
    assert find_normal_cluster(np.zeros(5, int), np.full(5, 0.1), np.ones(5)) is None
    one_empty = np.array([20, 0, 20, 20])  # an empty mask scores 0 beside the others
    assert find_normal_cluster(np.array([0, 0, 1, 1]), np.array([0.9, 0.9, 0.95, 0.95]), one_empty) is None
    assert find_normal_cluster(np.zeros(0, int), np.zeros(0), np.zeros(0)) is None


def test_empty_masks_are_evidence():
    areas = np.where(LABELS == 2, 0, 20)
    assert find_normal_cluster(LABELS, scores(0.7, 0.7, 0.7), areas) == 2


def test_separation_is_the_share_of_pairs():
    labels, values = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.5])
    assert find_normal_cluster(labels, values, np.ones(4), min_separation=0.75) == 0  # 3 of 4 pairs
    assert find_normal_cluster(labels, values, np.ones(4), min_separation=0.76) is None


def test_slots_before_move_up():
    assert with_slot_first(np.array([0, 1, 2, 3]), 0).tolist() == [0, 1, 2, 3]
    assert with_slot_first(np.array([0, 1, 2, 3]), 3).tolist() == [1, 2, 3, 0]
    assert with_slot_first(np.array([0, 1, 2, 3, 2]), 2).tolist() == [1, 2, 0, 3, 0]
    with pytest.raises(ValueError, match=r"one shape \(R,\), got \(3,\), \(2,\), \(3,\)"):
        find_normal_cluster(np.zeros(3), np.zeros(2), np.zeros(3))


ANGLES = np.concatenate([np.linspace(-0.3, 0.3, 20), np.linspace(1.2, 1.8, 20)])
REGIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
NORMAL = np.array([[1.0, 0.0], [np.cos(0.2), np.sin(0.2)], [0.6, 0.8]])
OWN = np.repeat([1, 2], 20)


@pytest.mark.parametrize(("of_normal", "expected"), [([1, 1, 2], 1), ([1, 1, 1], 1), ([3, 3, 2], 3)])
def test_the_cluster_of_most_known_normal_regions_is_normal(of_normal, expected):
    rows, labels = np.concatenate([REGIONS, NORMAL]), np.concatenate([OWN, of_normal])
    assert find_cluster_of_normal(rows, labels, len(REGIONS)) == expected  # cluster 3 holds no other region


def test_a_cluster_of_defects_is_not_normal_for_holding_normal_regions_at_its_border():
    rows, labels = np.concatenate([REGIONS, NORMAL]), np.concatenate([OWN, [2, 2, 2]])
    assert find_cluster_of_normal(rows, labels, len(REGIONS)) is None


def test_without_known_normal_regions_none_is_normal():
    assert find_cluster_of_normal(REGIONS, OWN, len(REGIONS)) is None


@pytest.mark.parametrize(("num_labels", "num_regions"), [(39, 20), (40, 41)])
def test_rows_and_labels_belong_together(num_labels, num_regions):
    with pytest.raises(ValueError, match="don't fit"):
        find_cluster_of_normal(REGIONS, np.zeros(num_labels, int), num_regions)


def test_example_of_find_cluster_of_normal():
    rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
    assert find_cluster_of_normal(rows, np.array([1, 1, 0, 1]), num_regions=3) == 1
    assert find_cluster_of_normal(rows, np.array([1, 1, 0, 0]), num_regions=3) is None


def test_example_of_find_normal_cluster():
    assert find_normal_cluster(np.array([1, 1, 0, 0, 2]), np.array([0.1, 0.2, 0.9, 0.8, 0.7]), np.full(5, 40)) == 1
