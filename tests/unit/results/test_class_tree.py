# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
from scipy.cluster.hierarchy import fcluster, ward
from sklearn.metrics import adjusted_rand_score

from anomalib_ncd.results.class_tree import class_tree


def groups(count=4, per_group=12, noise=0.1):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(count), per_group)
    return np.eye(8)[labels] + rng.normal(0, noise, (len(labels), 8)), labels


def test_merges_are_those_of_wards_method():
    features, labels = groups(5, noise=0.15)
    features[labels == 4] += 0.8 * np.eye(8)[0]
    tree = class_tree(features, labels)
    assert (tree.count, len(tree.merges)) == (5, 3)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    classes = labels.copy()
    for first, second in tree.merges:
        classes[classes == second] = first
        whole = fcluster(ward(rows), len(np.unique(classes)), "maxclust")
        assert adjusted_rand_score(whole, classes) > 0.9


def test_a_class_of_two_kinds_falls_apart_first():
    features, labels = groups()
    tree = class_tree(features, np.where(labels == 3, 2, labels), most=4)
    (of, leaving), *more = tree.splits
    assert not more
    assert of == 2
    assert len(set(labels[leaving])) == 1
    assert len(leaving) == 12


def test_normal_is_left_alone():
    features, labels = groups()
    tree = class_tree(features, labels, normal=0)
    assert all(0 not in pair for pair in tree.merges)
    assert all(of != 0 for of, _ in tree.splits)
    assert len(tree.merges) == 2
    assert len(tree.splits) == 16


def test_few_regions_and_copies():
    assert class_tree(np.zeros((0, 3)), np.zeros(0, int)).splits == []
    assert class_tree(np.ones((5, 3)), np.zeros(5, int)).splits == []
    assert len(class_tree(np.eye(3), np.zeros(3, int)).splits) == 2


def test_many_regions_are_sorted_by_their_distance():
    features, labels = groups(2, 1000)
    ((_, leaving),) = class_tree(features, np.zeros(2000, int), most=2).splits
    assert len(set(labels[leaving])) == 1
    assert len(leaving) == 1000
