# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from anomalib_ncd.models.clustering.new_classes import class_width, fit_new_prototypes, group_unknown


def draw(classes, count, spread=0.15, dim=12, seed=0):
    """Directions around axes: ``(count * len(classes), dim)`` and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(classes).repeat_interleave(count)
    rows = torch.eye(dim)[labels] + spread * torch.randn(len(labels), dim, generator=generator)
    return F.normalize(rows, dim=1), labels


KNOWN, KNOWN_CLASSES = draw([0, 1, 2], 20)


@pytest.mark.parametrize("new", [[5], [5, 6], [5, 6, 7, 8]])
def test_new_classes_are_as_coarse_as_the_old(new):
    rows, labels = draw(new, 8, seed=1)
    found = group_unknown(rows, KNOWN, KNOWN_CLASSES)
    assert adjusted_rand_score(labels, found) == 1
    assert found[0] == 0


def test_strays_stay_unknown():
    rows, _ = draw([5], 6, seed=1)
    found = group_unknown(torch.cat([rows, torch.eye(12)[[9, 10]]]), KNOWN, KNOWN_CLASSES)
    assert found.tolist() == [0] * 6 + [-1, -1]
    assert group_unknown(torch.eye(12)[[9, 10]], KNOWN, KNOWN_CLASSES, min_regions=1).tolist() == [0, 1]
    assert group_unknown(torch.eye(12)[[9]], KNOWN, KNOWN_CLASSES).tolist() == [-1]
    assert group_unknown(torch.eye(12)[[9]], KNOWN, KNOWN_CLASSES, min_regions=1).tolist() == [0]


def test_a_given_number_is_kept():
    rows, labels = draw([5, 6, 7], 5, seed=2)
    assert adjusted_rand_score(labels, group_unknown(rows, KNOWN, KNOWN_CLASSES, 3)) == 1
    assert set(group_unknown(rows, KNOWN, KNOWN_CLASSES, 1)) == {0}


def test_nothing_unknown_is_a_result():
    for number in (None, 2):
        assert group_unknown(KNOWN[:0], KNOWN, KNOWN_CLASSES, number).shape == (0,)


@pytest.mark.parametrize("numbers", [{"num_new_classes": 0}, {"min_regions": 0}])
def test_numbers_are_checked(numbers):
    with pytest.raises(ValueError, match="must be 1 or more, got 0"):
        group_unknown(KNOWN[:3], KNOWN, KNOWN_CLASSES, **numbers)


def test_the_width_lies_between_pairs_within_and_between_classes():
    distances = 1 - (KNOWN.double() @ KNOWN.double().T).numpy()
    same = (KNOWN_CLASSES[:, None] == KNOWN_CLASSES[None]).numpy()
    pairs = ~np.eye(len(KNOWN), dtype=bool)
    expected = (distances[same & pairs].mean() + distances[~same].mean()) / 2
    assert class_width(KNOWN, KNOWN_CLASSES) == pytest.approx(expected)
    one = KNOWN_CLASSES == 0
    within = distances[one.numpy()][:, one.numpy()]
    assert class_width(KNOWN[one], KNOWN_CLASSES[one]) == pytest.approx(2 * within.sum() / (20 * 19))
    assert class_width(KNOWN[:1], KNOWN_CLASSES[:1]) > 0


def test_old_regions_keep_their_classes_beside_new_prototypes():
    # Prototypes as training leaves them: far from the means of their classes, two heads, a base class in front.
    old, labels = draw([0, 1, 2], 30, seed=3)
    new, new_labels = draw([0, 5], 15, spread=0.3, seed=4)
    new_rows = new[new_labels == 5]
    weight = F.normalize(torch.eye(12)[[11, 0, 1, 2]] - 0.6 * torch.eye(12)[[5, 5, 5, 5]], dim=1).repeat(2, 1, 1)
    features = torch.cat([old, new_rows]) * 7
    slots = torch.cat([labels + 1, torch.full((len(new_rows),), 4)])
    found = fit_new_prototypes(weight, features, slots, num_new=1)
    assert found.shape == (2, 1, 12)
    torch.testing.assert_close(found.norm(dim=2), torch.ones(2, 1))
    logits = torch.einsum("nd,hcd->hnc", F.normalize(features, dim=1), torch.cat([weight, found], dim=1))
    assert (logits.argmax(dim=2) == slots).float().mean() > 0.98


def test_example_of_group_unknown():
    line = torch.eye(4)
    known, classes = line[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
    assert group_unknown(line[[2, 2, 2, 3]], known, classes).tolist() == [0, 0, 0, -1]
