# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from anomalib_ncd.metrics.facts import tell_facts
from anomalib_ncd.visualization.report import facts_section, write_report


def test_what_is_off_comes_first_with_its_advice():
    section = facts_section(tell_facts({"images_with_region": 1.0, "own_image": 0.5, "cluster_agreement": 0.4}))
    assert [finding.level for finding in section.findings] == ["warning", "warning", "plain"]
    assert section.findings[0].advice.startswith("The maps don't follow what is in their images.")
    assert section.findings[2].advice == ""


def test_it_stands_in_the_report(results_of, tmp_path):
    results = results_of([[0.1, 0.9], [0.9, 0.1]], [0, 1])
    pixels = np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24), bool)
    sections = [facts_section(tell_facts({"images_with_region": 0.25, "same_place": 0.02}))]
    write_report(tmp_path / "report.html", results, ["normal", "a"], lambda _: pixels, sections=sections)
    text = (tmp_path / "report.html").read_text()
    assert "25% of the images have a region. <em>Where nothing was found" in text
    assert '<li class="plain">' in text
    assert '<a href="#section-1">What is known without labels</a>' in text
