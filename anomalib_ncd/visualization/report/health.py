# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The section of the report that says how far a run can be trusted, without labels."""

from __future__ import annotations

from typing import Any

from anomalib_ncd.metrics.health import FIGURES
from anomalib_ncd.visualization.report.content import Finding, ReportSection

TITLE = "Can I trust it?"
VERDICTS = {"good": "looks healthy", "warning": "calls for a second look", "problem": "is not to be relied on"}


def health_section(health: dict[str, Any]) -> ReportSection:
    """Turn the part ``health`` of ``metrics.json`` into a section.

    Args:
        health: Of :func:`~anomalib_ncd.metrics.health.health_report`.

    Returns:
        The score as a summary, then every figure with its level and advice: problems first, then warnings.

    Example:
        >>> figures = {"empty_masks": {"value": 0.4, "level": "problem", "advice": "Look at the maps."}}
        >>> section = health_section({"score": 0.25, "level": "problem", "advice": "", "figures": figures})
        >>> section.summary
        'Health 0.25 of 1: this run is not to be relied on.'
    """
    by_name = {figure.name: figure for figure in FIGURES}
    findings = [
        Finding(entry["level"], by_name[name].text(entry["value"]), entry["advice"])
        for name, entry in health["figures"].items()
    ]
    findings.sort(key=lambda finding: ["problem", "warning", "good"].index(finding.level))
    score = "Health can't be measured" if health["score"] is None else f"Health {health['score']:.2f} of 1"
    summary = f"{score}: this run {VERDICTS[health['level']]}. {health['advice']}"
    hint = "Measured without labels, from the run alone; what the figures are worth is in docs/guides/trust.md."
    return ReportSection(TITLE, findings, summary.strip(), hint, health["score"], health["level"])
