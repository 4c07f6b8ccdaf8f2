# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.data.named_classes import named_probabilities, predict_classes

PROBABILITIES = torch.tensor([[0.40, 0.30, 0.05, 0.25], [0.10, 0.20, 0.60, 0.10], [0.25, 0.25, 0.25, 0.25]])
TWINS = ["normal", "scratch", "dent", "scratch"]


def test_probabilities_of_one_name_add_up():
    expected = torch.tensor([[0.40, 0.55, 0.05, 0], [0.10, 0.30, 0.60, 0], [0.25, 0.50, 0.25, 0]])
    torch.testing.assert_close(named_probabilities(PROBABILITIES, TWINS), expected)


def test_the_most_probable_name_wins_and_within_it_the_most_probable_slot():
    slots, scores = predict_classes(PROBABILITIES, TWINS)
    assert slots.tolist() == [1, 2, 1]
    torch.testing.assert_close(scores, torch.tensor([0.55, 0.60, 0.50]))
    slots, _ = predict_classes(torch.tensor([[0.4, 0.1, 0.1, 0.4]]), ["a", "b", "c", "b"])
    assert slots.tolist() == [3]


@pytest.mark.parametrize("names", [None, ["a", "b", "c", "d"]])
def test_without_twins_it_is_the_largest_probability(names):
    probabilities = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    slots, scores = predict_classes(probabilities, names)
    assert torch.equal(slots, probabilities.argmax(1))
    assert torch.equal(scores, probabilities.max(1).values)


@pytest.mark.parametrize("names", [None, TWINS])
def test_nothing_gives_nothing(names):
    slots, scores = predict_classes(torch.zeros(0, 4), names)
    assert slots.shape == scores.shape == (0,)


def test_every_slot_needs_a_name():
    with pytest.raises(ValueError, match=r"got 2 for \(3, 4\)"):
        predict_classes(PROBABILITIES, ["a", "b"])
    with pytest.raises(ValueError, match=r"got 4 for \(4,\)"):
        named_probabilities(torch.zeros(4), TWINS)
