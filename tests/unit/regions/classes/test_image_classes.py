# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.regions.classes.image_classes import classes_of_image, counting_regions

NAMES = ["normal", "a", "b", "a"]


def test_regions_count_by_score_mask_and_confidence():
    scores, areas = np.array([0.8, 0.4, 0.39, 0.8]), np.array([50, 9, 9, 0])
    confidence = np.array([0.9, 0.5, 0.9, 0.9])
    assert counting_regions(scores, areas, confidence, 0.5, 0.5).tolist() == [True, True, False, False]
    assert counting_regions(scores, areas, confidence, 0.0, 0.6).tolist() == [True, False, True, False]
    nothing = np.zeros(0)
    assert counting_regions(nothing, nothing, nothing).tolist() == []
    with pytest.raises(ValueError, match=r"must have one shape \(R,\), got .*\(3,\)"):
        counting_regions(scores, areas[:3], confidence)


def test_the_class_of_the_image_comes_first_and_each_once():
    assert classes_of_image(2, [1, 2, 1], NAMES, 0) == [2, 1]
    assert classes_of_image(1, [2, 1], NAMES, 0) == [1, 2]
    assert classes_of_image(2, [], NAMES, 0) == [2]


def test_normal_is_listed_only_as_the_class_of_the_image():
    assert classes_of_image(1, [1, 0, 0], NAMES, 0) == [1]
    assert classes_of_image(0, [0, 2], NAMES, 0) == [0, 2]
    assert classes_of_image(1, [1, 0, 0], NAMES, None) == [1, 0]
    # A class that has the name of normal is normal.
    assert classes_of_image(1, [3, 2], ["b", "a", "b", "normal"], 2) == [1, 3]


def test_slots_of_one_name_are_one_class():
    assert classes_of_image(3, [1, 3, 2], NAMES, 0) == [1, 2]
    assert classes_of_image(2, [3, 1], NAMES, 0) == [2, 1]
