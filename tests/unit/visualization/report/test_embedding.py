# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.visualization.report.embedding import map_regions


def groups(per_group, num_groups=3, dimensions=16):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_groups, dimensions)) * 4
    return np.repeat(centers, per_group, axis=0) + rng.normal(size=(num_groups * per_group, dimensions)) * 0.3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 12])
def test_any_number_of_regions_has_a_place(count):
    positions = map_regions(groups(4, 3)[:count])
    assert positions.shape == (count, 2)
    assert positions.dtype == np.float32
    assert np.isfinite(positions).all()
    if count > 1:
        assert np.abs(positions).max() == pytest.approx(1)
        assert len(np.unique(positions.round(4), axis=0)) == count


@pytest.mark.parametrize("max_tsne_regions", [2000, 10])
def test_alike_regions_lie_together(max_tsne_regions):
    positions = map_regions(groups(12), max_tsne_regions=max_tsne_regions).reshape(3, 12, 2)
    middles = positions.mean(axis=1)
    spread = np.linalg.norm(positions - middles[:, None], axis=-1).max()
    gaps = np.linalg.norm(middles[:, None] - middles[None], axis=-1)[np.triu_indices(3, 1)]
    assert gaps.min() > 1.5 * spread


def test_the_map_is_the_same_every_time():
    np.testing.assert_array_equal(map_regions(groups(6), seed=3), map_regions(groups(6), seed=3))


def test_the_longest_way_lies_flat():
    assert (np.ptp(map_regions(groups(12)), axis=0) @ [1, -1]) > 0


@pytest.mark.parametrize("features", [np.zeros((5, 4)), np.ones((9, 4)), np.arange(1.0, 9)[:, None] * np.ones(3)])
def test_regions_that_are_all_alike_lie_in_the_middle(features):
    np.testing.assert_array_equal(map_regions(features), np.zeros((len(features), 2)))


def test_one_dimension_is_enough():
    positions = map_regions(np.array([[1.0], [-1.0], [1.0]]))
    np.testing.assert_allclose(np.abs(positions), [[1, 0], [1, 0], [1, 0]])


@pytest.mark.parametrize("features", [np.zeros(4), np.full((3, 2), np.nan)])
def test_other_features_are_refused(features):
    with pytest.raises(ValueError, match=r"finite array of shape \(R, D\)"):
        map_regions(features)
