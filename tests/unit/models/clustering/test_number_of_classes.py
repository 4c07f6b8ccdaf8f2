# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd.models.clustering import number_of_classes
from anomalib_ncd.models.clustering.number_of_classes import NumClassesEstimate, estimate_num_classes


def blobs(sizes, spread=0.3, dim=16, seed=0):
    """Features of classes with random means."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(rng.normal(size=dim), spread, (size, dim)) for size in sizes])


@pytest.mark.parametrize("sizes", [[20, 20], [15, 15, 15], [60, 30, 15, 6], [20] * 7])
def test_separate_classes_are_counted(sizes):
    estimate = estimate_num_classes(blobs(sizes))
    assert estimate.low == estimate.count == len(sizes) <= estimate.high <= len(sizes) + 2
    assert max(estimate.curve, key=lambda point: point[1])[0] == len(sizes)


def test_the_curve_is_the_share_of_votes():
    estimate = estimate_num_classes(blobs([12] * 6, spread=1.4))
    counts, shares = zip(*estimate.curve, strict=True)
    assert counts == tuple(range(2, 72 // 4 + 1))
    assert sum(shares) == pytest.approx(1)
    assert all(share * 20 == pytest.approx(round(share * 20)) for share in shares)  # four criteria, five samples
    inside = sum(share for count, share in estimate.curve if estimate.low <= count <= estimate.high)
    assert inside >= 0.9
    assert estimate.low <= estimate.count < estimate.high


def test_estimate_and_range_have_votes():
    estimate = estimate_num_classes(blobs([8] * 8, spread=0.9, seed=5))
    assert {estimate.low, estimate.count, estimate.high} <= {count for count, share in estimate.curve if share}
    assert estimate.count == 6  # half of the votes are for 8, the others for 5 and 6


def test_candidates_end_at_the_largest_number():
    estimate = estimate_num_classes(blobs([20] * 7), max_classes=4)
    assert [count for count, _ in estimate.curve] == [2, 3, 4]
    assert estimate.count == estimate.high == 4


def test_the_seed_decides_and_tensors_do_as_well():
    rows = blobs([12] * 6, spread=1.4)
    assert estimate_num_classes(rows, seed=3) == estimate_num_classes(torch.tensor(rows), seed=3)
    assert estimate_num_classes(rows, seed=3).curve != estimate_num_classes(rows, seed=4).curve


def test_neither_order_nor_scale_of_a_dimension_matters_where_classes_are_separate():
    rows = blobs([20, 30, 10])
    scaled = np.random.default_rng(1).permutation(rows) * np.geomspace(0.01, 100, 16) + 5
    assert estimate_num_classes(scaled).count == estimate_num_classes(rows).count == 3


@pytest.mark.parametrize(
    ("num_regions", "expected"),
    [(0, (1, 1, 1)), (1, (1, 1, 1)), (2, (2, 1, 2)), (3, (2, 1, 3)), (7, (2, 1, 7))],
)
def test_too_few_regions_cannot_tell(num_regions, expected):
    estimate = estimate_num_classes(np.random.default_rng(0).normal(size=(num_regions, 5)))
    assert (estimate.count, estimate.low, estimate.high) == expected
    assert estimate.curve == []
    assert f"{num_regions} distinct region" in estimate.method


def test_copies_of_one_region_are_one_class():
    estimate = estimate_num_classes(np.ones((50, 5)))
    assert (estimate.count, estimate.low, estimate.high, estimate.curve) == (1, 1, 1, [])


def test_copies_of_eight_regions_are_no_trouble():
    rows = np.repeat(np.random.default_rng(0).normal(size=(8, 5)), 10, axis=0)
    estimate = estimate_num_classes(rows)
    assert estimate.count == 2  # no more than a quarter of the distinct ones
    assert estimate.curve == [(2, 1.0)]


def test_of_many_regions_some_are_looked_at(monkeypatch):
    monkeypatch.setattr(number_of_classes, "MAX_REGIONS", 60)
    estimate = estimate_num_classes(blobs([60, 60, 60]))
    assert estimate.count == 3
    assert [count for count, _ in estimate.curve] == list(range(2, 60 // 4 + 1))


@pytest.mark.parametrize("features", [np.zeros(5), np.full((9, 2), np.nan), np.zeros((2, 3, 4))])
def test_features_must_be_finite_rows(features):
    with pytest.raises(ValueError, match=r"`features` must be a finite array of shape \(R, D\)"):
        estimate_num_classes(features)


def test_there_are_at_least_two_candidates():
    with pytest.raises(ValueError, match="`max_classes` must be at least 2, got 1"):
        estimate_num_classes(np.zeros((9, 2)), max_classes=1)


def test_plain_data_comes_back():
    estimate = NumClassesEstimate(3, 2, 4, [(2, 0.25), (3, 0.75)], "a method")
    assert estimate.plain()["curve"] == [[2, 0.25], [3, 0.75]]
    assert NumClassesEstimate.from_plain(estimate.plain()) == estimate


def test_example_of_estimate_num_classes():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(mean, 0.3, (25, 16)) for mean in rng.normal(size=(5, 16))])
    assert estimate_num_classes(features).count == 5
