# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.regions.classes.slots import choose_classes, first_slots, named_probabilities

PROBABILITIES = np.array([[0.40, 0.30, 0.05, 0.25], [0.10, 0.20, 0.60, 0.10], [0.25, 0.25, 0.25, 0.25]], np.float32)
TWINS = ["normal", "scratch", "dent", "scratch"]


def test_slots_of_one_name_have_one_first_slot():
    assert first_slots(["normal", "scratch", "dent", "scratch"]) == [0, 1, 2, 1]
    assert first_slots(["a", "a", "a"]) == [0, 0, 0]
    assert first_slots([]) == []


def test_probabilities_of_one_name_add_up():
    expected = [[0.40, 0.55, 0.05, 0], [0.10, 0.30, 0.60, 0], [0.25, 0.50, 0.25, 0]]
    np.testing.assert_allclose(named_probabilities(PROBABILITIES, TWINS), expected, atol=1e-6)


def test_the_most_probable_name_wins_and_within_it_the_most_probable_slot():
    slots, scores = choose_classes(PROBABILITIES, TWINS)
    assert slots.tolist() == [1, 2, 1]
    np.testing.assert_allclose(scores, [0.55, 0.60, 0.50], atol=1e-6)
    slots, _ = choose_classes(np.array([[0.4, 0.1, 0.1, 0.4]]), ["a", "b", "c", "b"])
    assert slots.tolist() == [3]


def test_without_twins_it_is_the_largest_probability():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), size=50).astype(np.float32)
    slots, scores = choose_classes(probabilities, ["a", "b", "c", "d"])
    np.testing.assert_array_equal(slots, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(scores, probabilities.max(axis=1))


def test_nothing_gives_nothing():
    slots, scores = choose_classes(np.zeros((0, 4)), TWINS)
    assert slots.shape == scores.shape == (0,)


def test_every_slot_needs_a_name():
    with pytest.raises(ValueError, match=r"`class_names` must name the K slots of \(N, K\), got 2 for \(3, 4\)"):
        choose_classes(PROBABILITIES, ["a", "b"])
    with pytest.raises(ValueError, match=r"got 4 for \(4,\)"):
        named_probabilities(np.zeros(4), TWINS)
