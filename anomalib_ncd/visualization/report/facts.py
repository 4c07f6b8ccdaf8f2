# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The section of the report that says what is known of a run without labels."""

from typing import Any

from anomalib_ncd.visualization.report.content import Finding, ReportSection

TITLE = "What is known without labels"
HINT = (
    "Facts, no verdict: a wrong run can have good numbers, so look at the classes. What each is worth is in "
    "docs/guides/trust.md."
)


def facts_section(facts: dict[str, dict[str, Any]]) -> ReportSection:
    """Turn the part ``facts`` of ``metrics.json`` into a section; what is off comes first, with its advice.

    Example:
        >>> facts_section({"x": {"value": 0.4, "text": "40% are empty.", "advice": "Look."}}).findings
        [Finding(level='warning', text='40% are empty.', advice='Look.')]
    """
    findings = [
        Finding("warning" if fact["advice"] else "plain", fact["text"], fact["advice"]) for fact in facts.values()
    ]
    return ReportSection(TITLE, sorted(findings, key=lambda finding: finding.level == "plain"), HINT)
