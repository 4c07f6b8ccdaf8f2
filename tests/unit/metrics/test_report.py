# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from anomalib_ncd.metrics import clustering_report
from anomalib_ncd.metrics.matching import clustering_accuracy, matched_macro_f1


def test_equals_golden(golden_dir):
    golden = np.load(golden_dir / "metrics.npz")
    for index in range(4):
        report = clustering_report(golden[f"pred{index}"], golden[f"true{index}"])
        for key, name in (("nmi", "nmi"), ("ari", "ari"), ("accuracy", "f1")):
            assert report[key] == pytest.approx(golden[f"{name}{index}"].item(), abs=1e-7)


def test_unlabelled_samples_are_left_out():
    rng = np.random.default_rng(0)
    preds, target = rng.integers(0, 4, 50), rng.integers(-1, 3, 50)
    keep = target >= 0
    assert clustering_report(preds, target) == pytest.approx(
        {
            "nmi": normalized_mutual_info_score(target[keep], preds[keep]),
            "ari": adjusted_rand_score(target[keep], preds[keep]),
            "accuracy": clustering_accuracy(preds[keep], target[keep]),
            "macro_f1": matched_macro_f1(preds[keep], target[keep]),
        }
    )


@pytest.mark.parametrize("target", [np.array([], dtype=int), np.array([-1, -1])])
def test_nothing_labelled_is_nan(target):
    report = clustering_report(np.zeros_like(target), target)
    assert list(report) == ["nmi", "ari", "accuracy", "macro_f1"]
    assert all(type(value) is float and math.isnan(value) for value in report.values())


def test_values_are_plain_floats():
    report = clustering_report(np.array([3, 3, 5, 5]), np.array([1, 1, 0, 1]))
    assert all(type(value) is float for value in report.values())


def test_bad_shapes_raise():
    with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(2,\) and \(3,\)"):
        clustering_report(np.arange(2), np.arange(3))
