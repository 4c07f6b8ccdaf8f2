# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the robust score range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomalib_ncd.regions.elements import find_elements
from anomalib_ncd.regions.robust_range import fit_robust_range, map_facts, otsu_threshold

MAPS = hnp.arrays(np.float64, (6, 8, 8), elements=st.integers(0, 64).map(lambda value: value / 64))


def _maps(count: int = 20, num_bad: int = 10, size: int = 32) -> np.ndarray:
    """Maps with background 0.1 to 0.3; the first ones also have a square of 0.9."""
    rng = np.random.default_rng(0)
    maps = rng.uniform(0.1, 0.3, (count, size, size))
    maps[:num_bad, size // 4 : size // 2, size // 4 : size // 2] = 0.9
    return maps


def _fit(maps: np.ndarray, normal: np.ndarray | None = None):
    return fit_robust_range(list(map(map_facts, maps)), [] if normal is None else list(map(map_facts, normal)))


def test_facts_are_those_of_the_map() -> None:
    anomaly_map = np.arange(64, dtype=np.uint8).reshape(8, 8)
    facts = map_facts(anomaly_map)
    assert (facts.lowest, facts.median, facts.peak) == (0.0, 31.5, 63.0)
    assert facts.part_peaks.tolist() == [9, 11, 13, 15, 25, 27, 29, 31, 41, 43, 45, 47, 57, 59, 61, 63]


@pytest.mark.parametrize(("shape", "count"), [((1, 1), 1), ((1, 9), 4), ((3, 2), 6), ((5, 7), 16)])
def test_small_maps_have_fewer_parts(shape: tuple[int, int], count: int) -> None:
    assert map_facts(np.ones(shape)).part_peaks.shape == (count,)


def test_facts_refuse_maps_with_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        map_facts(np.full((2, 2), np.nan))


def test_floor_divides_background_from_defects() -> None:
    fitted = _fit(_maps())
    assert fitted.low == pytest.approx(0.3, abs=0.01)
    assert 0.3 < sum(fitted.score_range) / 2 < 0.9
    assert (fitted.hot, fitted.is_inverted) == ((), False)


def test_range_follows_scale_and_offset() -> None:
    maps = _maps()
    assert _fit(maps * 40 - 7).score_range == pytest.approx([40 * end - 7 for end in _fit(maps).score_range])


def test_order_of_maps_does_not_matter() -> None:
    maps = _maps()
    assert _fit(maps[::-1]).score_range == _fit(maps).score_range


@pytest.mark.parametrize("size", [16, 64, 128])
def test_range_is_that_of_maps_of_another_size(size: int) -> None:
    maps = _maps()
    if size > 32:
        other = maps.repeat(size // 32, axis=1).repeat(size // 32, axis=2)
    else:
        other = maps.reshape(20, size, 32 // size, size, 32 // size).max(axis=(2, 4))
    assert sum(_fit(other).score_range) == pytest.approx(sum(_fit(maps).score_range), abs=0.01)


@given(MAPS, st.integers(0, 63), st.booleans())
def test_a_map_with_ten_times_the_peak_changes_no_other_mask(maps: np.ndarray, pixel: int, everywhere: bool) -> None:
    hot = maps[0] * 10
    if not everywhere:
        hot = maps[0].copy()
    hot.ravel()[pixel] = 10 * maps.max()
    before, after = _fit(maps), _fit(np.concatenate([maps, hot[None]]))
    for anomaly_map in maps:
        old, new = (find_elements(anomaly_map, fitted.score_range)[0] for fitted in (before, after))
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("factors", [[10], [10, 100], [7, 70, 700]])
def test_hot_maps_are_named_and_leave_the_range_as_it_is(factors: list[float]) -> None:
    maps = _maps()
    hot = np.array([maps[0] * factor for factor in factors])
    fitted = _fit(np.concatenate([hot, maps]))
    assert fitted.score_range == _fit(maps).score_range
    assert fitted.hot == tuple(range(len(factors)))


def test_a_high_map_that_is_not_hot_moves_the_floor_by_its_share_alone() -> None:
    maps = _maps(100, 50)
    high = maps[0].copy()
    high[0, 0] = 1.8
    fitted = _fit(np.concatenate([maps, high[None]]))
    assert fitted.hot == ()
    assert fitted.score_range == pytest.approx(_fit(maps).score_range, abs=0.01)


def test_the_only_map_with_anything_is_not_hot() -> None:
    maps = np.zeros((5, 8, 8))
    maps[2, 3, 3] = 1
    assert _fit(maps).hot == ()


def test_normal_maps_bound_the_floor_from_both_sides() -> None:
    maps = _maps()
    floor = sum(_fit(maps).score_range) / 2
    low_normal, high_normal = _maps(9, 0) * 0.5, np.full((3, 32, 32), 0.1)
    high_normal[:, 0, 0] = (0.7, 0.8, 0.9)
    assert low_normal.max() < floor < 0.8
    assert sum(_fit(maps, low_normal).score_range) / 2 == pytest.approx(low_normal.max())
    assert sum(_fit(maps, high_normal).score_range) / 2 == pytest.approx(0.8)


def test_a_peak_above_all_normal_ones_stands_out() -> None:
    maps, normal = _maps(), _maps(9, 0)
    maps[-1, 5, 5] = 0.35
    elements, _ = find_elements(maps[-1], _fit(maps, normal).score_range)
    assert elements[5, 5] == 1
    assert np.count_nonzero(elements) < 10


def test_what_a_quarter_of_all_parts_reach_does_not_stand_out() -> None:
    maps = np.random.default_rng(0).uniform(0, 0.1, (40, 32, 32))
    maps[:, ::8, 8], maps[:30, 4, 4] = 0.4, 0.9  # four of sixteen parts are restless in all maps
    maps[::3, 20, 20] = 0.9
    assert sum(_fit(maps).score_range) / 2 >= 0.4


def test_inverted_maps_are_noticed() -> None:
    assert _fit(1 - _maps()).is_inverted


def test_constant_maps_have_a_range_without_width() -> None:
    fitted = _fit(np.full((3, 4, 4), 2.0))
    assert fitted.score_range == (2.0, 2.0)
    assert not fitted.is_inverted


def test_one_map_is_enough() -> None:
    low, high = _fit(_maps(1, 1)).score_range
    assert 0.3 < (low + high) / 2 < 0.9


def test_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_robust_range([])


@given(hnp.arrays(np.float64, st.integers(2, 12), elements=st.integers(0, 20).map(float)))
def test_otsu_is_the_split_with_the_highest_variance_between_classes(values: np.ndarray) -> None:
    def between(threshold: float) -> float:
        below, above = values[values <= threshold], values[values > threshold]
        return len(below) * len(above) * (above.mean() - below.mean()) ** 2

    threshold = otsu_threshold(values)
    if np.ptp(values) == 0:
        assert threshold == values[0]
    else:
        levels = np.unique(values)
        assert between(threshold) == pytest.approx(max(between(level) for level in levels[:-1]))


def test_maps_that_saturate_keep_their_elements():
    maps = np.zeros((6, 40, 40))
    maps[:, 2:22, 2:22] = 1  # a quarter of all parts, and all peaks, have the highest value
    low, high = fit_robust_range([map_facts(one) for one in maps]).score_range
    assert low < (low + high) / 2 < 1


def test_example_of_fit_robust_range():
    maps = np.zeros((8, 16, 16))
    maps[:, 2:4, 2:4] = 6
    assert fit_robust_range([map_facts(anomaly_map) for anomaly_map in maps]).score_range == (0.0, 6.0)
