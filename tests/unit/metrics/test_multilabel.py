# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd.metrics.matching import clustering_accuracy, match_classes
from anomalib_ncd.metrics.multilabel import ClusterMultilabelF1, match_label_sets, multilabel_report


def one_hot(ids, width):
    return np.eye(width, dtype=bool)[ids]


def test_one_class_per_image_is_the_accuracy():
    rng = np.random.default_rng(0)
    preds, target = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    report = multilabel_report(one_hot(preds, 4), one_hot(target, 3))
    assert report["micro_f1"] == pytest.approx(clustering_accuracy(preds, target))
    assert report["exact_match"] == pytest.approx(report["micro_f1"])
    assert match_label_sets(one_hot(preds, 4), one_hot(target, 3)) == match_classes(preds, target)


def test_report_by_hand():
    # Columns a, b, c of the prediction mean 1, 0 and nothing.
    target = np.array([[1, 0], [1, 1], [0, 1], [0, 1]], bool)
    preds = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]], bool)
    report = multilabel_report(preds, target)
    # Agreed: a in images 1 and 2, b in 0 and 1: 4 of 6 predicted and 5 true labels.
    assert report["micro_f1"] == pytest.approx(8 / 11)
    assert report["macro_f1"] == pytest.approx((4 / 4 + 4 / 5) / 2)
    assert report["exact_match"] == 0.5


def test_classes_that_nothing_matches_score_nothing():
    report = multilabel_report(np.ones((3, 1), bool), np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], bool))
    assert report["macro_f1"] == pytest.approx(0.8 / 2)
    assert all(np.isnan(value) for value in multilabel_report(np.zeros((0, 2), bool), np.zeros((0, 1), bool)).values())


def test_the_metric_gathers_batches():
    rng = np.random.default_rng(1)
    preds, target = rng.random((20, 4)) < 0.4, rng.random((20, 3)) < 0.4
    metric = ClusterMultilabelF1()
    assert metric.compute().isnan()
    metric.reset()
    for part in (slice(0, 7), slice(7, 20)):
        metric.update(torch.tensor(preds[part]), torch.tensor(target[part]))
    assert metric.compute().item() == pytest.approx(multilabel_report(preds, target)["micro_f1"])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"shapes \(N, K\) and \(N, L\), got \(2, 2\) and \(3, 2\)"):
        multilabel_report(np.zeros((2, 2), bool), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="must be bool, got int64 and bool"):
        match_label_sets(np.zeros((2, 2), int), np.zeros((2, 2), bool))
