# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.regions.classes.image_classes import classes_of_images, counting_regions

NAMES = ["normal", "a", "b", "a"]
IMAGE = np.array([0, 0, 0, 1, 1])


def sets(image_classes, region_classes, counting, normal_slot=0, names=NAMES):
    return classes_of_images(
        np.array(image_classes), np.array(region_classes), np.array(counting), IMAGE, names, normal_slot
    )


def test_regions_count_by_score_mask_and_confidence():
    scores, areas = np.array([0.8, 0.4, 0.39, 0.2, 0.2]), np.array([50, 9, 9, 9, 0])
    confidence = np.array([0.9, 0.5, 0.9, 0.5, 0.9])
    assert counting_regions(scores, areas, confidence, IMAGE, 0.5, 0.5).tolist() == [True, True, False, True, False]
    assert counting_regions(scores, areas, confidence, IMAGE, 0.0, 0.6).tolist() == [True, False, True, False, False]
    nothing = np.zeros(0)
    assert counting_regions(nothing, nothing, nothing, nothing.astype(int)).tolist() == []
    with pytest.raises(ValueError, match=r"must have one shape \(R,\), got .*\(4,\)"):
        counting_regions(scores, areas[:4], confidence, IMAGE)


def test_the_class_of_the_image_comes_first_and_each_once():
    assert sets([2, 1], [1, 2, 1, 2, 1], [True] * 5) == [[2, 1], [1, 2]]
    assert sets([2, 1], [1, 2, 1, 2, 1], [False, True, False, False, True]) == [[2], [1]]


def test_normal_is_listed_only_as_the_class_of_the_image():
    assert sets([1, 0], [1, 0, 0, 0, 2], [True] * 5) == [[1], [0, 2]]
    assert sets([1, 0], [1, 0, 0, 0, 2], [True] * 5, normal_slot=None) == [[1, 0], [0, 2]]


def test_slots_of_one_name_are_one_class():
    assert sets([3, 2], [1, 3, 2, 3, 1], [True] * 5) == [[1, 2], [2, 1]]
