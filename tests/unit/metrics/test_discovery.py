# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, adjusted_rand_score, f1_score, normalized_mutual_info_score

from anomalib_ncd.metrics.discovery import (
    clustering_accuracy,
    clustering_report,
    discovery_report,
    match_classes,
    matched_macro_f1,
    matched_predictions,
    normal_report,
)

LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(10, 14)), min_size=1, max_size=30)
SCORES = ("nmi", "ari", "accuracy", "macro_f1")
TRUE_NAMES = ["good", "dent", "scratch"]
FOUND_NAMES = ["normal", "class_1", "class_2"]


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


def test_a_perfect_result_with_other_numbers():
    target = np.array([0, 0, 1, 1, 2, 2])
    report = discovery_report((target + 1) % 3, target, FOUND_NAMES, TRUE_NAMES)
    assert [report[name] for name in SCORES] == pytest.approx([1, 1, 1, 1])
    assert report["count"] == 6
    assert report["defects"]["count"] == 4
    assert [report["defects"][name] for name in SCORES] == pytest.approx([1, 1, 1, 1])
    assert report["matching"] == {"normal": "scratch", "class_1": "good", "class_2": "dent"}


def test_scores_by_hand():
    preds, target = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 2])
    report = discovery_report(preds, target, FOUND_NAMES, TRUE_NAMES)
    assert report["accuracy"] == pytest.approx(5 / 6)
    assert report["macro_f1"] == pytest.approx((4 / 5 + 4 / 5 + 1) / 3)
    assert report["nmi"] == pytest.approx(normalized_mutual_info_score(target, preds))
    assert report["ari"] == pytest.approx(adjusted_rand_score(target, preds))
    assert report["confusion"] == {
        "good": {"normal": 2, "class_1": 0, "class_2": 0},
        "dent": {"normal": 1, "class_1": 2, "class_2": 0},
        "scratch": {"normal": 0, "class_1": 0, "class_2": 1},
    }


def test_defects_are_scored_alone():
    preds, target = np.array([1, 2, 1, 1, 2]), np.array([0, 0, 1, 1, 2])
    report = discovery_report(preds, target, FOUND_NAMES, TRUE_NAMES)
    assert report["accuracy"] < 1
    assert report["defects"]["accuracy"] == 1


def test_the_normal_label_can_have_another_name():
    preds, target = np.array([0, 1]), np.array([0, 1])
    report = discovery_report(preds, target, FOUND_NAMES, ["ok", "dent"], normal_label="ok")
    assert report["defects"]["count"] == 1
    assert discovery_report(preds, target, FOUND_NAMES, ["ok", "dent"])["defects"]["count"] == 2


def test_good_images_alone_have_no_defects():
    report = discovery_report(np.array([0, 1]), np.array([0, 0]), FOUND_NAMES, TRUE_NAMES)
    assert "defects" not in report
    assert report["accuracy"] == 0.5


def test_what_is_unlabelled_is_left_out():
    preds, target = np.array([0, 1, 2, 2]), np.array([0, 1, 2, -1])
    report = discovery_report(preds, target, FOUND_NAMES, TRUE_NAMES)
    assert report["count"] == 3
    assert report["accuracy"] == 1


def test_no_labels_give_no_scores():
    assert discovery_report(np.array([0, 1]), np.array([-1, -1]), FOUND_NAMES, TRUE_NAMES) == {"count": 0}


def test_more_classes_than_there_are():
    report = discovery_report(np.array([0, 1, 2]), np.array([0, 0, 1]), FOUND_NAMES, TRUE_NAMES)
    assert len(report["matching"]) == 2
    assert report["accuracy"] == pytest.approx(2 / 3)


def test_the_report_is_json():
    report = discovery_report(np.array([0, 1, 2]), np.array([0, 0, 1]), FOUND_NAMES, TRUE_NAMES)
    assert json.loads(json.dumps(report)) == report


def test_report_by_hand():
    predicted = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    good = np.array([1, 1, 0, 1, 1, 0, 0, 0], bool)
    assert normal_report(predicted, good) == {
        "false_alarms": 4,
        "predicted": 3,
        "recall": 0.5,
        "precision": 2 / 3,
        "defects_lost": 0.25,
    }


def test_a_share_of_nothing_is_none():
    nothing = np.zeros(2, bool)
    assert normal_report(nothing, nothing)["recall"] is None
    assert normal_report(nothing, ~nothing)["precision"] is None
    assert normal_report(~nothing, ~nothing)["defects_lost"] is None
    with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(2,\) and \(3,\)"):
        normal_report(nothing, np.zeros(3, bool))


def brute_force_agreement(preds, target):
    """The highest agreement over all one-to-one matchings."""
    pred_classes, true_classes = sorted(set(preds)), sorted(set(target))
    padded = true_classes + [None] * len(pred_classes)
    return max(
        sum(names[pred_classes.index(p)] == t for p, t in zip(preds, target, strict=True))
        for names in set(itertools.permutations(padded, len(pred_classes)))
    )


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(10, 13)), min_size=1, max_size=20))
def test_matching_agrees_most(pairs):
    preds, target = np.array(pairs).T
    matches = match_classes(preds, target)
    assert len(set(matches.values())) == len(matches) == min(len(set(preds)), len(set(target)))
    agreement = sum(matches.get(p) == t for p, t in pairs)
    assert agreement == brute_force_agreement(preds.tolist(), target.tolist())
    assert clustering_accuracy(preds, target) == pytest.approx(agreement / len(pairs))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(LABELS)
def test_scores_equal_scikit_learn(pairs):
    preds, target = np.array(pairs).T
    matched = matched_predictions(preds, target)
    assert clustering_accuracy(preds, target) == pytest.approx(accuracy_score(target, matched))
    expected = f1_score(target, matched, labels=np.unique(target), average="macro", zero_division=0)
    assert matched_macro_f1(preds, target) == pytest.approx(expected)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(LABELS, st.permutations(range(5)), st.randoms(use_true_random=False))
def test_accuracy_is_independent_of_names_and_order(pairs, names, random):
    preds, target = np.array(pairs).T
    order = np.array(random.sample(range(len(pairs)), len(pairs)))
    renamed = np.array(names)[preds]
    assert clustering_accuracy(renamed, target) == pytest.approx(clustering_accuracy(preds, target))
    assert clustering_accuracy(preds[order], target[order]) == pytest.approx(clustering_accuracy(preds, target))


def test_equals_golden_after_matching(golden_dir):
    golden = np.load(golden_dir / "metrics.npz")
    for index in range(4):
        accuracy = clustering_accuracy(golden[f"pred{index}"], golden[f"true{index}"])
        assert accuracy == pytest.approx(golden[f"f1{index}"].item(), abs=1e-7)


def test_left_over_classes():
    preds, target = np.array([4, 4, 7, 7, 9]), np.array([1, 1, 0, 0, 0])
    assert match_classes(preds, target) == {4: 1, 7: 0}
    assert matched_predictions(preds, target, unmatched=-5).tolist() == [1, 1, 0, 0, -5]
    assert match_classes(target, preds) == {0: 7, 1: 4}
    # Class 9 has no match and scores 0; classes 4 and 7 score 1 and 2 · 2 / (2 + 3).
    assert matched_macro_f1(target, preds) == pytest.approx((1 + 0.8 + 0) / 3)


def test_nothing_is_a_result():
    nothing = np.array([], dtype=int)
    assert match_classes(nothing, nothing) == {}
    assert matched_predictions(nothing, nothing).shape == (0,)
    assert math.isnan(clustering_accuracy(nothing, nothing))
    assert math.isnan(matched_macro_f1(nothing, nothing))


@pytest.mark.parametrize("function", [match_classes, matched_predictions, clustering_accuracy, matched_macro_f1])
def test_bad_labels_raise(function):
    with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(2,\) and \(3,\)"):
        function(np.arange(2), np.arange(3))
    with pytest.raises(ValueError, match="must both have shape"):
        function(np.zeros((2, 2), dtype=int), np.zeros((2, 2), dtype=int))
    with pytest.raises(ValueError, match="`preds` must hold integer class ids, got float64"):
        function(np.zeros(2), np.arange(2))
    with pytest.raises(ValueError, match="`target` must hold integer class ids"):
        function(np.arange(2), np.zeros(2))


def test_example_of_clustering_report():
    assert clustering_report(np.array([3, 3, 5, 5, 5]), np.array([1, 1, 0, 0, -1])) == {
        "nmi": 1.0,
        "ari": 1.0,
        "accuracy": 1.0,
        "macro_f1": 1.0,
    }


def test_example_of_discovery_report():
    report = discovery_report(np.array([0, 0, 1]), np.array([1, 1, 0]), ["normal", "class_1"], ["good", "dent"])
    assert (report["accuracy"], report["matching"]) == (1.0, {"normal": "dent", "class_1": "good"})


def test_example_of_match_classes():
    assert match_classes(np.array([4, 4, 7, 7, 9]), np.array([1, 1, 0, 0, 0])) == {4: 1, 7: 0}
