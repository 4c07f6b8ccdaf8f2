# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import tempfile

import numpy as np
import pytest
import torch

from anomalib_ncd.post_processing import MEBinSettings, mebin_from_exported
from anomalib_ncd.regions.mebin import binarize, fit_score_range

MAPS = np.random.default_rng(0).random((3, 24, 40), dtype=np.float32)
SETTINGS = MEBinSettings(score_range=(0.2, 0.9), sample_rate=8, min_interval_len=2, erosion_size=2)


@pytest.mark.parametrize("settings", [SETTINGS, MEBinSettings()])
def test_settings_survive_the_file(tmp_path, settings):
    settings.save(tmp_path / "mebin.json")
    assert MEBinSettings.load(tmp_path / "mebin.json") == settings


@pytest.mark.parametrize("anomaly_map", [MAPS, MAPS[:, None], torch.from_numpy(MAPS), torch.from_numpy(MAPS)[:, None]])
def test_equals_functional(tmp_path, anomaly_map):
    SETTINGS.save(tmp_path / "mebin.json")
    for settings in (SETTINGS, tmp_path / "mebin.json"):
        for single, result in zip(MAPS, mebin_from_exported(anomaly_map, settings), strict=True):
            expected = binarize(single, (0.2, 0.9), 8, 2, 2)
            np.testing.assert_array_equal(result.mask, expected.mask)
            assert result[1:] == expected[1:]


def test_single_map():
    assert mebin_from_exported(MAPS[0], SETTINGS)[0].mask.shape == (24, 40)


def test_own_range_where_none_is_known():
    settings = MEBinSettings(min_interval_len=1, erosion_size=0)
    result = mebin_from_exported(MAPS[:1], settings)[0]
    expected = binarize(MAPS[0], fit_score_range([MAPS[0]]), min_interval_len=1, erosion_size=0)
    np.testing.assert_array_equal(result.mask, expected.mask)


def test_masks_at_image_size():
    blob = np.zeros((16, 16), dtype=np.float32)
    blob[4:8, 8:12] = 1
    settings = MEBinSettings(score_range=(0, 1), erosion_size=0)
    mask = mebin_from_exported(blob, settings, image_size_hw=(32, 48))[0].mask
    np.testing.assert_array_equal(mask, np.kron(blob, np.ones((2, 3))))


@pytest.mark.parametrize(
    ("erosion_size", "size_hw", "expected"),
    [(6, (256, 256), 6), (6, (512, 512), 12), (6, (64, 128), 3), (6, (16, 16), 1), (0, (512, 512), 0)],
)
def test_erosion_scales_with_longer_side(erosion_size, size_hw, expected):
    assert MEBinSettings(erosion_size=erosion_size, scale_erosion=True).erosion_size_for(size_hw) == expected
    assert MEBinSettings(erosion_size=erosion_size).erosion_size_for(size_hw) == erosion_size


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 4), (1, 1, 1, 4, 4)])
def test_bad_shape_raises(shape):
    with pytest.raises(ValueError, match=r"must have shape \(H, W\), \(B, H, W\) or \(B, 1, H, W\)"):
        mebin_from_exported(np.zeros(shape), SETTINGS)


def test_nan_raises():
    with pytest.raises(ValueError, match="must be finite"):
        mebin_from_exported(np.full((1, 4, 4), np.nan), SETTINGS)


def test_settings_survive_a_file():
    settings = MEBinSettings(score_range=(0.25, 0.75))
    with tempfile.TemporaryDirectory() as folder:
        settings.save(f"{folder}/mebin.json")
        assert MEBinSettings.load(f"{folder}/mebin.json") == settings
