# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import numpy as np
import pytest

from anomalib_ncd.visualization.report.certainty import region_certainty

NAMES = ["normal", "class_1", "class_2"]
ANGLES = np.radians([0, 10, 44, 90, 80])
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * [[1], [5], [2], [1], [3]]
HARD = [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]]


def test_probabilities_say_how_sure_a_class_is(results_of):
    by_region = [[0.1, 0.8, 0.1], [0.45, 0.25, 0.3], [0.6, 0.05, 0.35], [0.05, 0.15, 0.8]]
    found = region_certainty(results_of(by_region, [0, 0, 1, 2]).batch, NAMES)
    assert found.slot.tolist() == [1, 0, 0, 2]
    assert found.runner_up.tolist()[1:] == [2, 2, 1]
    np.testing.assert_allclose(found.value, [0.8, 0.45, 0.6, 0.8], rtol=1e-6)
    assert found.is_doubtful.tolist() == [False, True, False, False]


def test_classes_that_are_the_same_are_no_rivals(results_of):
    results = results_of([[0.0, 0.5, 0.5], [0.6, 0.3, 0.1]], [0, 1])
    results = results.showing(results.image_results(["normal", "a", "a"]))
    found = region_certainty(results.batch, ["normal", "a", "a"])
    assert found.slot.tolist() == [1, 0]
    assert found.runner_up.tolist() == [0, 1]
    np.testing.assert_allclose(found.value, [1.0, 0.6], rtol=1e-6)
    assert found.is_doubtful.tolist() == [False, True]


def test_distances_are_those_to_the_mean_of_the_own_class(results_of):
    found = region_certainty(results_of(HARD, range(5), features=CIRCLE, has_normal_slot=False).batch, ["a", "b"])
    unit = CIRCLE / np.linalg.norm(CIRCLE, axis=1, keepdims=True)
    means = [unit[:3].mean(0), unit[3:].mean(0)]
    own = np.array([np.linalg.norm(unit[i] - means[int(i > 2)]) for i in range(5)])
    np.testing.assert_allclose(found.distance, own, rtol=1e-5)
    assert found.runner_up.tolist() == [1, 1, 1, 0, 0]
    assert (found.value == 1).all()
    assert not found.is_doubtful.any()
    assert (region_certainty(results_of(HARD, range(5)).batch, ["a", "b"]).distance == 0).all()


def test_the_tenth_with_the_closest_second_is_doubtful(results_of):
    by_region = [[0.3 + 0.01 * number, 0.7 - 0.01 * number] for number in range(20)]
    found = region_certainty(results_of(by_region, range(20), has_normal_slot=False).batch, ["a", "b"])
    assert np.flatnonzero(found.is_doubtful).tolist() == [18, 19]
    np.testing.assert_allclose(found.lead[[0, 19]], [0.4, 0.02], atol=1e-6)


@pytest.mark.parametrize("features", [None, CIRCLE])
def test_a_single_class_has_no_rival(results_of, features):
    batch = results_of([[1.0]] * 5, range(5), features=features, has_normal_slot=False).batch
    found = region_certainty(batch, ["class_1"])
    assert (found.runner_up == -1).all()
    assert (found.value == 1).all()
    assert not found.is_doubtful.any()


def test_empty_classes_come_second_to_nothing(results_of):
    by_region = [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    features = np.array([[1, 0], [1, 0.1], [0, 1]])
    batch = results_of(by_region, range(3), features=features, has_normal_slot=False).batch
    assert region_certainty(batch, ["class_1", "class_2", "class_3"]).runner_up.tolist() == [1, 1, 0]


def test_predictions_are_needed(results_of):
    batch = replace(results_of([[1.0, 0]], [0]).batch, region_pred_class_id=None)
    with pytest.raises(ValueError, match="holds no predictions"):
        region_certainty(batch, ["normal", "class_1"])
