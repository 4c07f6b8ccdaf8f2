# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from anomalib_ncd.metrics.matching import clustering_accuracy, match_classes, matched_macro_f1, matched_predictions

LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(10, 14)), min_size=1, max_size=30)


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


def test_equals_golden(golden_dir):
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
