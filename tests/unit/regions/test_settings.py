# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from anomalib_ncd.regions.settings import RegionSettings


def test_settings_survive_json():
    settings = RegionSettings(sample_rate=2, padding_ratio=1, method="mebin", bit_depth=12)
    assert RegionSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 0),
        ("sample_rate", 2.5),
        ("min_interval_len", True),
        ("erosion_size", -1),
        ("padding_ratio", -0.1),
        ("padding_ratio", float("nan")),
        ("min_size_ratio", float("inf")),
        ("merge_distance_ratio", "0.1"),
        ("bit_depth", 8),
        ("bit_depth", 17),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be of type"):
        RegionSettings(**{name: value})


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"method": "otsu"}, "`method` must be one of"),
        ({"method": "threshold"}, "`threshold` must be given with the method 'threshold' alone, got None"),
        ({"threshold": 0.5}, "`threshold` must be given with the method 'threshold' alone, got 0.5"),
        ({"method": "threshold", "threshold": "0.5"}, "`threshold` must be of type"),
        ({"method": "threshold", "threshold": float("nan")}, "`threshold` must be of type"),
    ],
)
def test_methods_and_thresholds_go_together(values, match):
    with pytest.raises(ValueError, match=match):
        RegionSettings(**values)
    assert RegionSettings(method="threshold", threshold=-2).to_dict()["threshold"] == -2


@pytest.mark.parametrize("values", [{}, {"sample_rate": 4}, RegionSettings().to_dict() | {"more": 1}, None, [1]])
def test_settings_of_another_version_are_refused(values):
    with pytest.raises(ValueError, match="of another version"):
        RegionSettings.from_dict(values)
