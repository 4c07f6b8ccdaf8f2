# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import math

import pytest

from anomalib_ncd.metrics.health import FIGURES, HealthFigure, health_report


@pytest.mark.parametrize(
    ("value", "level"), [(0.8, "good"), (0.6, "good"), (0.59, "warning"), (0.4, "warning"), (0.39, "problem")]
)
def test_high_is_good(value, level):
    assert HealthFigure("x", "", 0.6, 0.4, "").level(value) == level


@pytest.mark.parametrize(("value", "level"), [(0.1, "good"), (0.2, "warning"), (0.3, "warning"), (0.31, "problem")])
def test_low_is_good_where_the_limits_say_so(value, level):
    assert HealthFigure("x", "", 0.1, 0.3, "").level(value) == level


def test_values_are_written_as_the_figure_says():
    assert HealthFigure("x", "It is {value}.", 1, 0, "").text(0.256) == "It is 0.26."
    assert HealthFigure("x", "It is {value}.", 1, 0, "", as_percent=True).text(0.256) == "It is 26%."


def test_advice_stands_where_a_figure_is_not_good():
    figures = health_report({"empty_masks": 0.05, "largest_class": 0.95, "silhouette": math.nan})["figures"]
    assert list(figures) == ["largest_class", "empty_masks"]
    assert figures["empty_masks"] == {"value": 0.05, "level": "good", "advice": ""}
    assert figures["largest_class"]["level"] == "problem"
    assert "more classes" in figures["largest_class"]["advice"]


def test_every_figure_has_two_different_limits_and_a_place_for_its_value():
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    for figure in FIGURES:
        assert figure.good != figure.warning
        assert "{value}" in figure.title
        assert figure.advice


@pytest.mark.parametrize(
    ("agreement", "number", "score", "level"),
    [(0.9, 5, 0.72, "good"), (1.0, 2, 0.5, "warning"), (0.6, 5, 0.48, "problem"), (-0.1, 5, 0, "problem")],
)
def test_the_score_is_agreement_times_diversity(agreement, number, score, level):
    report = health_report({"neighbour_agreement": agreement, "effective_number": number})
    assert report["score"] == pytest.approx(score)
    assert report["level"] == level
    assert bool(report["advice"]) == (level != "good")


def test_a_single_class_tells_nothing_apart():
    assert health_report({"neighbour_agreement": math.nan, "effective_number": 1.0})["score"] == 0


def test_without_a_score_nothing_is_healthy_and_all_is_json():
    report = health_report({})
    assert (report["score"], report["level"]) == (None, "problem")
    assert json.loads(json.dumps(report, allow_nan=False)) == report
