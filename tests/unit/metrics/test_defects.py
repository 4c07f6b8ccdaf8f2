# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.data.labels import Defect
from anomalib_ncd.metrics.defects import (
    count_found,
    defect_report,
    match_label_sets,
    multilabel_report,
    region_classes,
    touches,
)
from anomalib_ncd.metrics.discovery import clustering_accuracy, match_classes


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


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"shapes \(N, K\) and \(N, L\), got \(2, 2\) and \(3, 2\)"):
        multilabel_report(np.zeros((2, 2), bool), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="must be bool, got int64 and bool"):
        match_label_sets(np.zeros((2, 2), int), np.zeros((2, 2), bool))


def defect(left, top, right, bottom, name="dent"):
    return Defect(name, (left, top, right, bottom), np.ones((bottom - top, right - left), bool))


def test_masks_touch_where_they_share_a_pixel():
    ring = np.ones((10, 10), bool)
    ring[2:8, 2:8] = False
    defects = [defect(4, 4, 6, 6), defect(0, 0, 3, 3), defect(9, 0, 12, 1), defect(30, 30, 31, 31)]
    found = touches([(0, 0, 10, 10), (-2, -3, 8, 7), (10.4, 0.4, 20.4, 10.4)], [ring, ring, ring], defects)
    assert found.tolist() == [[False, True, True, False], [True, False, False, False], [False, False, True, False]]
    assert touches([], [], defects).shape == (0, 4)
    assert touches([(0, 0, 10, 10)], [ring], []).shape == (1, 0)


def test_a_region_on_several_kinds_has_no_class():
    table = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 1]], bool)
    assert region_classes(table, [3, 3, 4], normal=0).tolist() == [3, -1, 0, 4]


def test_what_was_found_is_counted():
    table = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert count_found(table) == {"defects": 4, "touched": 2, "own": 1, "regions": 4, "false": 1}
    assert count_found(np.zeros((0, 2), bool)) == {"defects": 2, "touched": 0, "own": 0, "regions": 0, "false": 0}


def test_the_report_has_shares():
    preds, target = np.array([[1, 0], [1, 1]], bool), np.array([[0, 1], [1, 1]], bool)
    counts = {"defects": 4, "touched": 2, "own": 1, "regions": 4, "false": 1}
    report = defect_report(counts, preds, target)
    assert {name: report[name] for name in ("count", "recall", "touched", "num_regions", "false_alarms")} == {
        "count": 4,
        "recall": 0.25,
        "touched": 0.5,
        "num_regions": 4,
        "false_alarms": 0.25,
    }
    assert report["images"] == {"count": 2, "micro_f1": 1.0, "macro_f1": 1.0, "exact_match": 1.0}
    nothing = defect_report(dict.fromkeys(counts, 0), preds, target)
    assert nothing["recall"] is nothing["false_alarms"] is None


def test_example_of_multilabel_report():
    assert multilabel_report(np.array([[1, 0], [1, 0]], bool), np.array([[1, 0], [1, 1]], bool)) == {
        "micro_f1": 0.8,
        "macro_f1": 0.5,
        "exact_match": 0.5,
    }


def test_example_of_count_found():
    assert count_found(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)) == {
        "defects": 3,
        "touched": 3,
        "own": 1,
        "regions": 3,
        "false": 1,
    }
