# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd.data.named_classes import predict_classes
from anomalib_ncd.models.region_merging import merge_regions, relative_merging_temperature
from anomalib_ncd.regions.classes.merging import choose_classes, merge_image, merging_temperature_of, region_weights


@pytest.mark.parametrize("temperature", [0.5, 50, 1e4])
def test_merging_equals_that_of_tensors(temperature):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), size=7).astype(np.float32)
    areas = rng.integers(0, 90_000, 7)
    index = torch.zeros(7, dtype=torch.long)
    wanted = merge_regions(torch.from_numpy(probabilities), torch.from_numpy(areas), index, temperature)
    np.testing.assert_allclose(merge_image(probabilities, areas, temperature), wanted[0].numpy(), atol=1e-6)


def test_weights_by_hand():
    # roots 10 and 20 over 10: exp(1 - 2) to exp(0)
    weights = region_weights(np.array([100, 400]), 10)
    assert weights == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    assert region_weights(np.array([0]), 10).tolist() == [1.0]


def test_the_temperature_equals_that_of_tensors():
    for size in ((64, 64), (300, 417), (1024, 900)):
        wanted = float(relative_merging_temperature(torch.tensor([size])))
        assert merging_temperature_of(size) == pytest.approx(wanted)


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], ["a", "b", "a", "b"], ["a", "b", "b", "b"], ["a"] * 4])
def test_the_choice_equals_that_of_tensors(names):
    probabilities = np.random.default_rng(1).dirichlet(np.ones(4), size=30).astype(np.float32)
    slots, scores = choose_classes(probabilities, names)
    wanted_slots, wanted_scores = predict_classes(torch.from_numpy(probabilities), names)
    assert slots.tolist() == wanted_slots.tolist()
    np.testing.assert_allclose(scores, wanted_scores.numpy(), atol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`areas` must have shape \(R,\), R of 1 or more"):
        region_weights(np.array([]), 1)
    with pytest.raises(ValueError, match="`areas` must have shape"):
        region_weights(np.array([-1]), 1)
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        region_weights(np.array([1]), 0)
    with pytest.raises(ValueError, match=r"`probabilities` must have shape \(R, K\) for 2 areas, got \(1, 3\)"):
        merge_image(np.ones((1, 3)), np.array([1, 1]), 1)
    with pytest.raises(ValueError, match=r"`class_names` must name the K slots of \(N, K\), got 2 for \(1, 3\)"):
        choose_classes(np.ones((1, 3)), ["a", "b"])
