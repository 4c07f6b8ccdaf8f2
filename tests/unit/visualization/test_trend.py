# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from collections import Counter

import pytest

from anomalib_ncd.results.trend import ImageGroup, Trend
from anomalib_ncd.visualization.trend import write_trend


def build_trend(*groups, kinds=("good", "dent", "unknown")):
    return Trend(groups, kinds, "good", 0.001)


def test_the_page_shows_kinds_groups_and_drift(tmp_path):
    calm = ImageGroup("2026-03-01", Counter(good=90, dent=10), [0.7] * 12, 1, 3, 0.4)
    drifted = ImageGroup("2026-03-02", Counter(good=50, dent=10, unknown=40), [0.1] * 50, 40, 6, 1e-9, has_drifted=True)
    write_trend(tmp_path / "t.html", build_trend(calm, drifted), "day")
    page = (tmp_path / "t.html").read_text()
    assert "200 images in 2 days" in page
    assert "Drift in 1 of them" in page
    assert "In 2026-03-02 the regions" in page
    assert "2026-03-02: unknown, 40 of 100" in page
    assert page.count("<rect") == 5
    assert "66.7 %" in page  # unknown among what is not good


@pytest.mark.parametrize(("limit", "sentence"), [(3, "No drift."), (None, "Nothing is compared")])
def test_the_page_says_what_was_compared(tmp_path, limit, sentence):
    write_trend(
        tmp_path / "t.html", build_trend(ImageGroup("a", Counter(good=3), [0.7], 0, limit), kinds=("good",)), "batch"
    )
    page = (tmp_path / "t.html").read_text()
    assert sentence in page
    assert "All images are good." in page


def test_names_are_no_markup(tmp_path):
    group = ImageGroup("<b>", Counter({"<script>": 1}))
    write_trend(tmp_path / "t.html", build_trend(group, kinds=("<script>",)), "batch")
    page = (tmp_path / "t.html").read_text()
    assert "<script>" not in page
    assert "<b>" not in page
