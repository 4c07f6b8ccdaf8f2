# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.results import label_order as module
from anomalib_ncd.results.label_order import doubt_of, label_order


@pytest.fixture
def blobs():
    """Three groups of ten directions, by their numbers."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 10)
    return np.eye(4)[groups] + rng.normal(0, 0.1, (30, 4)), groups


def nothing(count):
    return np.zeros(count, dtype=bool)


def test_each_group_is_asked_of_before_one_is_asked_of_again(blobs):
    features, groups = blobs
    found = label_order(features, np.ones(30), np.arange(30), 9, nothing(30))
    assert set(groups[found[:3]]) == {0, 1, 2}
    assert len(set(found)) == 9


def test_doubtful_regions_come_first_and_labelled_ones_never(blobs):
    features, groups = blobs
    doubt = np.where(groups == 1, 1.0, 0.01)
    assert groups[label_order(features, doubt, np.arange(30), 1, nothing(30))[0]] == 1
    labelled = groups == 1
    labelled[np.flatnonzero(labelled)[5:]] = False
    found = label_order(features, np.ones(30), np.arange(30), 30, labelled)
    assert groups[found[0]] != 1
    assert set(found) == set(np.flatnonzero(~labelled))


def test_one_region_of_an_image_is_asked_of(blobs):
    features, _ = blobs
    images = np.arange(30) // 3
    labelled = nothing(30)
    labelled[0] = True
    found = label_order(features, np.ones(30), images, 30, labelled)
    assert sorted(images[found]) == list(range(1, 10))


def test_of_many_the_most_doubtful_are_looked_at(blobs, monkeypatch):
    features, _ = blobs
    monkeypatch.setattr(module, "MAX_COMPARED", 12)
    doubt = np.linspace(1, 0, 30)
    assert set(label_order(features, doubt, np.arange(30), 30, nothing(30))) == set(range(12))


def test_nothing_to_choose_from():
    assert label_order(np.zeros((0, 3)), np.zeros(0), np.zeros(0, int), 5, nothing(0)) == []
    assert label_order(np.ones((2, 3)), np.ones(2), np.arange(2), 5, ~nothing(2)) == []


def test_doubt():
    assert doubt_of(np.array([[0.5, 0.5, 0.0], [0.75, 0.0, 0.25], [0.0, 0.0, 1.0]])).tolist() == [1.0, 0.5, 0.0]
    assert doubt_of(np.ones((2, 1))).tolist() == [0.0, 0.0]


def test_example_of_label_order():
    features = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    assert label_order(features, np.array([1.0, 1.0, 0.1, 0.0]), np.arange(4), 2, np.zeros(4, bool)) == [1, 2]


def test_each_choice_adds_most():
    rng = np.random.default_rng(0)
    features, doubt = rng.normal(size=(60, 5)), rng.random(60)
    found = label_order(features, doubt, np.arange(60), 20, np.arange(60) < 3)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    rows -= rows.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alike, nearest = rows @ rows.T, (rows @ rows[:3].T).max(axis=1)
    for one in found:
        gains = (doubt + 1e-6) @ np.maximum(alike - nearest[:, None], 0)
        gains[:3] = -1
        assert gains[one] == pytest.approx(gains.max(), rel=1e-4)
        nearest = np.maximum(nearest, alike[:, one])
