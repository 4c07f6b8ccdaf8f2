# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from scipy import ndimage

from anomalib_ncd.regions.threshold_sweep import ThresholdSweep, sweep_thresholds


def test_thresholds_descend_to_above_zero():
    thresholds = sweep_thresholds(4)
    assert (len(thresholds), thresholds[0], thresholds[-1]) == (64, 255, 3)
    assert sweep_thresholds(51).tolist() == [255, 204, 153, 102, 51]


@pytest.mark.parametrize("sample_rate", [0, 256, 1.5])
def test_bad_sample_rate_raises(sample_rate):
    with pytest.raises(ValueError, match="`sample_rate` must be a whole number from 1 to 255"):
        sweep_thresholds(sample_rate)


@pytest.mark.parametrize("min_interval_len", [1, 3, 4, 6, 9, 200])
def test_stable_counts_miss_no_run(min_interval_len):
    rng = np.random.default_rng(min_interval_len)
    thresholds = sweep_thresholds(4)
    for sigma in (0, 1, 3):
        levels = ndimage.gaussian_filter(rng.random((40, 50)), sigma)
        levels = ((levels - levels.min()) / np.ptp(levels) * 255).astype(np.uint8)
        expected = np.array([ndimage.label(levels > t, np.ones((3, 3)))[1] for t in thresholds])
        np.testing.assert_array_equal(ThresholdSweep(levels, thresholds).count_all(), expected)
        found = ThresholdSweep(levels, thresholds).count_stable(min_interval_len)
        is_known = found != -1
        np.testing.assert_array_equal(found[is_known], expected[is_known])
        unknown_runs = "".join("x" if known else "." for known in is_known).split("x")
        assert max(map(len, unknown_runs)) < min_interval_len
        for start in range(len(expected) - min_interval_len + 1):
            window = slice(start, start + min_interval_len)
            if expected[start] > 0 and (expected[window] == expected[start]).all():
                assert is_known[window].all()


def test_empty_map_counts_nothing():
    sweep = ThresholdSweep(np.zeros((5, 5), dtype=np.uint8), sweep_thresholds(4))
    assert not sweep.count_all().any()
    assert not sweep.count_stable(4).any()
