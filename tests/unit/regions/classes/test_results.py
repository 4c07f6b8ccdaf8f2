# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest

from anomalib_ncd.regions.classes.results import ImageResult, RegionResult, run_lengths

MASK = np.array([[False, True, True], [True, False, False]])


def mask_of_run_lengths(lengths, size_hw):
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size_hw)


def build_region(**values):
    region = {
        "box_xyxy": (1.5, 2.0, 4.5, 4.0),
        "area": 3,
        "score": 0.123456789,
        "class_id": 1,
        "class_name": "Kratzer",
        "confidence": 0.75,
        "is_unknown": False,
        "probabilities": (0.25, 0.75),
        "mask": MASK,
        "feature": np.zeros(4, np.float32),
    }
    return RegionResult(**(region | values))


def build_image(**values):
    image = {
        "image": "parts/ä.png",
        "size_hw": (6, 8),
        "score": 0.5,
        "class_id": 1,
        "class_name": "Kratzer",
        "confidence": 0.75,
        "classes": ("Kratzer", "Delle"),
        "probabilities": (0.25, 0.75),
        "regions": (build_region(),),
    }
    return ImageResult(**(image | values))


def test_a_result_becomes_json_and_back():
    found = json.loads(build_image().to_json())
    assert found["image"] == "parts/ä.png"
    assert found["class"] == "Kratzer"
    assert found["classes"] == ["Kratzer", "Delle"]
    assert (found["normal"], found["unknown"], found["error"]) == (False, False, None)
    [region] = found["regions"]
    assert region["box_xyxy"] == [1.5, 2.0, 4.5, 4.0]
    assert region["score"] == 0.123457
    assert "mask" not in region
    assert "feature" not in region


def test_masks_go_along_where_they_are_wanted():
    [region] = json.loads(build_image().to_json(masks=True))["regions"]
    assert region["mask"] == {"size_hw": [2, 3], "run_lengths": [1, 3, 2]}
    restored = mask_of_run_lengths(region["mask"]["run_lengths"], tuple(region["mask"]["size_hw"]))
    np.testing.assert_array_equal(restored, MASK)
    assert "mask" not in build_region(mask=None).to_dict(masks=True)


def test_an_error_is_all_that_is_said_of_an_image():
    assert ImageResult("a.png", error="broken").to_dict() == {"image": "a.png", "error": "broken"}


def test_results_are_frozen_and_compare_by_value():
    assert build_image() == build_image()
    assert build_region() != build_region(class_id=0)
    with pytest.raises(AttributeError):
        build_image().class_name = "other"


@pytest.mark.parametrize("density", [0, 0.1, 0.5, 1])
def test_run_lengths_lose_nothing(density):
    mask = np.random.default_rng(0).random((13, 17)) < density
    np.testing.assert_array_equal(mask_of_run_lengths(run_lengths(mask), (13, 17)), mask)
