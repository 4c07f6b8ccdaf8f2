# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.regions.peak import peak_mask


def test_is_what_is_connected_with_the_peak():
    anomaly_map = np.zeros((40, 60), dtype=np.uint8)
    anomaly_map[5:10, 5:12] = 60
    anomaly_map[7, 8] = 100
    anomaly_map[30:35, 40:50] = 90
    expected = np.zeros((40, 60), dtype=bool)
    expected[5:10, 5:12] = True
    np.testing.assert_array_equal(peak_mask(anomaly_map), expected)


def test_neither_offset_nor_scale_matters():
    anomaly_map = np.random.default_rng(0).random((30, 30))
    np.testing.assert_array_equal(peak_mask(anomaly_map), peak_mask(3 * anomaly_map - 7))


def test_ends_half_way_to_the_median():
    ramp = np.tile(10 - np.abs(np.arange(21) - 10.0), (9, 1))
    half_way = (np.median(ramp) + ramp.max()) / 2
    np.testing.assert_array_equal(peak_mask(ramp), ramp > half_way)


@pytest.mark.parametrize("value", [0, 3.5, -1])
def test_constant_map_has_none(value):
    assert not peak_mask(np.full((5, 6), value)).any()


def test_one_pixel_is_enough():
    anomaly_map = np.zeros((5, 6))
    anomaly_map[4, 0] = 1e-9
    assert np.argwhere(peak_mask(anomaly_map)).tolist() == [[4, 0]]


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 4, 4)])
def test_bad_shape_raises(shape):
    with pytest.raises(ValueError, match=r"`anomaly_map` must have shape \(H, W\)"):
        peak_mask(np.zeros(shape))


def test_broken_maps_raise():
    with pytest.raises(ValueError, match="`anomaly_map` must be finite, got NaN or infinity"):
        peak_mask(np.array([[0.0, np.nan]]))
