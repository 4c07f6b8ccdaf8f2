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
    with pytest.raises(ValueError, match=r"one shape \(R,\), got \(3,\), \(2,\), \(3,\)"):
        find_normal_cluster(np.zeros(3), np.zeros(2), np.zeros(3))


COSINES = np.tile(np.linspace(0.7, 0.9, 10), 3)
INSIDE = np.linspace(0.72, 0.8, 20)


def test_the_cluster_that_known_normal_regions_go_to_is_normal():
    assert find_cluster_of_normal(COSINES, LABELS, INSIDE, np.repeat([1, 2], [15, 5])) == 1
    assert find_cluster_of_normal(COSINES, LABELS, INSIDE, np.repeat([1, 2], [9, 11])) == 2


def test_a_cluster_of_defects_is_not_normal_for_being_the_nearest():
    assert find_cluster_of_normal(COSINES, LABELS, INSIDE - 0.1, np.ones(20, int)) is None
    wider = np.where(LABELS == 1, COSINES - 0.1, COSINES)
    assert find_cluster_of_normal(wider, LABELS, INSIDE - 0.1, np.ones(20, int)) == 1


def test_without_known_normal_regions_or_members_none_is_normal():
    nothing = np.zeros(0)
    assert find_cluster_of_normal(COSINES, LABELS, nothing, nothing.astype(int)) is None
    assert find_cluster_of_normal(COSINES, LABELS, INSIDE, np.full(20, 3)) is None


def test_cosines_and_labels_belong_together():
    with pytest.raises(ValueError, match="one shape each"):
        find_cluster_of_normal(np.zeros(3), np.zeros(2, int), np.zeros(1), np.zeros(1, int))
