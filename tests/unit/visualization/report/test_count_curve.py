# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest

from anomalib_ncd.visualization.report.count_curve import BOTTOM, HEIGHT, TOP, WIDTH, count_curve

ESTIMATE = {"count": 4, "low": 3, "high": 4, "curve": [[2, 0.0], [3, 0.5], [4, 1.0], [5, 0.25]], "method": "a method"}


def test_a_given_number_has_no_curve():
    assert count_curve(None) is None


def test_points_lie_where_their_scores_say():
    curve = count_curve(ESTIMATE)
    assert [point.count for point in curve.points] == [2, 3, 4, 5]
    assert [point.x for point in curve.points] == sorted(point.x for point in curve.points)
    assert 0 < curve.points[0].x < curve.points[-1].x < WIDTH
    low, half, high, quarter = (point.y for point in curve.points)
    assert high == TOP
    assert low == HEIGHT - BOTTOM - 8
    assert half == pytest.approx((low + high) / 2)
    assert quarter == pytest.approx(low + 0.25 * (high - low))
    assert curve.line.split()[2] == f"{curve.points[2].x},{high}"


def test_the_band_covers_the_range_alone():
    curve = count_curve(ESTIMATE)
    left, right = curve.band[0], curve.band[0] + curve.band[1]
    assert [left < point.x < right for point in curve.points] == [False, True, True, False]


def test_many_candidates_do_not_have_a_number_each():
    scores = [[count, float(count)] for count in range(2, 62)]
    points = count_curve(ESTIMATE | {"count": 33, "curve": scores}).points
    shown = [point.count for point in points if point.has_tick]
    assert 33 in shown
    assert len(shown) <= 21


@pytest.mark.parametrize(
    ("estimate", "sentence"),
    [
        (ESTIMATE, "4 classes, normal included, were estimated; between 3 and 4 are plausible."),
        (ESTIMATE | {"low": 4}, "4 classes, normal included, were estimated; samples of the regions agree on it."),
        (
            {"count": 1, "low": 1, "high": 1, "curve": [], "method": "one region"},
            "1 class, normal included, was estimated.",
        ),
    ],
)
def test_the_sentence(estimate, sentence):
    curve = count_curve(estimate)
    assert curve.sentence == sentence
    assert bool(curve.points) == bool(estimate["curve"])


def test_equal_scores_are_a_flat_line():
    points = count_curve(ESTIMATE | {"curve": [[2, 0.3], [3, 0.3], [4, 0.3]]}).points
    assert len({point.y for point in points}) == 1
