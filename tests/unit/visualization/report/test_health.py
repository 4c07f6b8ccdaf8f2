# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from anomalib_ncd.metrics.health import FIGURES, health_report
from anomalib_ncd.visualization.report import health_section, write_report


def test_problems_come_first_with_their_advice():
    worst = {figure.name: 0.5 for figure in FIGURES} | {"empty_masks": 0.9, "largest_class": 0.6}
    section = health_section(health_report(worst))
    levels = [finding.level for finding in section.findings]
    assert levels == sorted(levels, key=["problem", "warning", "good"].index)
    assert len(levels) == len(FIGURES)
    [empty] = [finding for finding in section.findings if "90%" in finding.text]
    assert empty.level == "problem"
    assert empty.advice.startswith("The maps show nothing there.")
    assert all(finding.advice for finding in section.findings if finding.level != "good")
    assert not any(finding.advice for finding in section.findings if finding.level == "good")


def test_a_run_without_a_score_says_so():
    section = health_section(health_report({}))
    assert section.summary.startswith("Health can't be measured: this run is not to be relied on.")
    assert section.score is None


def test_it_stands_in_the_report(results_of, tmp_path):
    report = {"score": 0.25, "level": "problem", "advice": "Look.", "figures": {}}
    results = results_of([[0.1, 0.9], [0.9, 0.1]], [0, 1])
    pixels = np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24), bool)
    file = tmp_path / "report.html"
    write_report(file, results, ["normal", "a"], lambda _: pixels, sections=[health_section(report)])
    text = file.read_text()
    assert "Health 0.25 of 1: this run is not to be relied on. Look." in text
    assert '<div class="verdict problem">' in text
    assert "--share: 0.250" in text
    assert '<a href="#section-1">Can I trust it?</a>' in text
