# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_ncd.post_processing.score_range import MapExtremes, range_of_extremes
from anomalib_ncd.regions.mebin import fit_score_range


@settings(deadline=None, max_examples=50, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), num_maps=st.integers(1, 9), batch_size=st.integers(1, 9))
def test_equals_functional_range_for_any_batching(seed, num_maps, batch_size):
    maps = torch.rand(num_maps, 1, 5, 7, generator=torch.Generator().manual_seed(seed)) * 100 - 50
    extremes = MapExtremes()
    for batch in maps.split(batch_size):
        extremes.update(batch)
    assert range_of_extremes(extremes.compute()) == fit_score_range(maps[:, 0].numpy())


def test_a_robust_range_leaves_out_a_hot_image():
    extremes = torch.stack([torch.tensor([*range(1, 10), 1000.0]), torch.zeros(10)], dim=1)
    assert range_of_extremes(extremes) == (1.0, 1000.0)
    assert range_of_extremes(extremes, robust=True) == (1.0, 9.0)


def test_equal_peaks_fall_back_to_lowest_value():
    assert range_of_extremes(torch.tensor([[2.0, 0.5], [2.0, 0.25]])) == (0.25, 2.0)


@pytest.mark.parametrize(
    "extremes",
    [torch.zeros(0, 2), torch.ones(3, 2), torch.full((2, 2), torch.nan), torch.tensor([[torch.inf, 0.0]])],
)
def test_nothing_to_fit_on_is_none(extremes):
    assert range_of_extremes(extremes) is None


def test_maps_with_nan_are_left_out():
    assert range_of_extremes(torch.tensor([[torch.nan, 0.0], [1.0, 0.0], [3.0, 1.0]])) == (1.0, 3.0)
