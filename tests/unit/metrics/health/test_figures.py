# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest

from anomalib_ncd.metrics.health import FIGURES, RunEvidence, health_figures


def evidence(preds, features=None, **given):
    count = len(preds)
    defaults = {"scores": np.linspace(0, 1, count), "areas": np.full(count, 9), "confidences": np.full(count, 0.75)}
    return RunEvidence(np.asarray(preds), 3, features, **(defaults | given))


def test_every_figure_is_computed_and_judged():
    preds = np.repeat([0, 1, 2], 4)
    features = np.eye(3)[preds] + np.random.default_rng(0).normal(0, 0.01, (12, 3))
    figures = health_figures(evidence(preds, features, is_normal=preds == 0, head_preds=np.stack([preds, preds])))
    assert set(figures) == {figure.name for figure in FIGURES} | {"effective_number"}
    assert not any(math.isnan(value) for value in figures.values())
    assert figures["resample_agreement"] == figures["head_agreement"] == figures["normal_separation"] == 1
    assert figures["confidence"] == 0.75


def test_wrong_classes_are_seen_in_the_features():
    right = np.repeat([0, 1, 2], 8)
    features = np.eye(3)[right] + np.random.default_rng(0).normal(0, 0.01, (24, 3))
    good, bad = (health_figures(evidence(preds, features)) for preds in (right, np.tile([0, 1, 2], 8)))
    for name in ("neighbour_agreement", "silhouette", "resample_agreement"):
        assert good[name] > 0.9
        assert bad[name] < 0.1


def test_sizes_by_hand():
    figures = health_figures(evidence([0, 0, 0, 1]))
    assert (figures["smallest_class"], figures["largest_class"]) == (0, 0.75)
    assert figures["effective_number"] == pytest.approx(4 / 3**0.75)
    assert figures["effective_share"] == pytest.approx((4 / 3**0.75) / 3)
    assert math.isnan(figures["silhouette"])


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_region_is_no_error(count):
    figures = health_figures(evidence(np.zeros(count, int), np.zeros((count, 2))))
    assert math.isnan(figures["neighbour_agreement"])
    assert math.isnan(figures["empty_masks"]) == (count == 0)
