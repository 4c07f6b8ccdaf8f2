# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.metrics.health import separation
from anomalib_ncd.metrics.health.separation import neighbour_agreement, silhouette

CIRCLE = np.array([[np.cos(angle), np.sin(angle)] for angle in np.deg2rad([0, 1, 2, 90, 91, 92])])


def test_neighbours_of_one_class_agree_wholly():
    assert neighbour_agreement(CIRCLE, np.array([0, 0, 0, 1, 1, 1]), 2) == 1
    assert neighbour_agreement(CIRCLE * 7, np.array([5, 5, 5, 2, 2, 2]), 2) == 1  # norms and numbers don't matter


def test_neighbour_agreement_by_hand():
    # Two nearest neighbours are the other two of the group: shares 1/2, 1/2, 0, and the same again: p = 1/3.
    # Two random others of the same class: (3 * 2 + 3 * 2) / (6 * 5) = 2/5.
    preds = np.array([0, 0, 1, 0, 1, 1])
    assert neighbour_agreement(CIRCLE, preds, 2) == pytest.approx((1 / 3 - 2 / 5) / (1 - 2 / 5))


def test_silhouette_by_hand():
    features = np.array([[1.0, 0], [3.0, 0], [0, 2.0], [-1, 0]])
    preds = np.array([0, 0, 1, 1])
    # Two copies: own distance 0, silhouette 1. The others: own sqrt 2; to class 0 sqrt 2, and 2.
    assert silhouette(features, preds) == pytest.approx((1 + 1 + 0 + (1 - np.sqrt(2) / 2)) / 4)


def test_random_classes_are_at_chance():
    rng = np.random.default_rng(0)
    assert abs(neighbour_agreement(rng.normal(size=(400, 8)), rng.integers(0, 4, 400))) < 0.05


@pytest.mark.parametrize("figure", [silhouette, neighbour_agreement])
def test_too_little_is_not_a_number(figure):
    assert np.isnan(figure(np.zeros((0, 2)), np.zeros(0, int)))
    assert np.isnan(figure(CIRCLE, np.zeros(6, int)))
    assert np.isnan(figure(CIRCLE[:1], np.zeros(1, int)))
    with pytest.raises(ValueError, match=r"shapes \(N, D\) and \(N,\), got \(6, 2\) and \(5,\)"):
        figure(CIRCLE, np.zeros(5, int))


def test_no_neighbours_are_refused():
    with pytest.raises(ValueError, match="`num_neighbours` must be 1 or more, got 0"):
        neighbour_agreement(CIRCLE, np.zeros(6, int), 0)


def test_of_many_regions_a_part_is_measured(monkeypatch):
    monkeypatch.setattr(separation, "MAX_REGIONS", 40)
    features = np.repeat(CIRCLE[[0, 3]], 60, axis=0) + np.random.default_rng(0).normal(0, 0.01, (120, 2))
    assert neighbour_agreement(features, np.repeat([0, 1], 60)) == 1
    assert silhouette(features, np.repeat([0, 1], 60)) > 0.9
