# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomalib_ncd.models.clustering.directions import left_out_similarity, neighbour_similarity


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
