# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The page of trends: kinds of defect over time, and drift, in one file that opens offline."""

from itertools import accumulate
from pathlib import Path
from typing import Any

from anomalib_ncd.regions.writing import write_file
from anomalib_ncd.results.tables import UNKNOWN
from anomalib_ncd.results.trend import ImageGroup, Trend
from anomalib_ncd.visualization.page import render

NUM_COLORS = 12
WIDTH, HEIGHT, BOTTOM, MAX_TICKS = 1000, 220, 26, 10


def write_trend(file: str | Path, trend: Trend, by: str) -> None:
    """Write the page, whose groups are days, shifts or batches. A reader never sees a half-written file."""
    defects = [kind for kind in trend.kinds if kind not in {trend.normal, UNKNOWN}]
    colors = {kind: f"var(--c{index % NUM_COLORS})" for index, kind in enumerate(defects)}
    colors |= {trend.normal: "var(--normal)", UNKNOWN: "var(--problem)"}
    html = render(
        "trend.html",
        by=by,
        trend=trend,
        total=sum(group.num_images for group in trend.groups),
        unknown=UNKNOWN,
        drifted=[group for group in trend.groups if group.has_drifted],
        has_limits=any(group.limit is not None for group in trend.groups),
        colors=colors,
        pareto=_pareto(trend),
        columns=_columns(trend, colors),
        ticks=_ticks(trend),
        size=(WIDTH, HEIGHT),
        bottom=BOTTOM,
    )
    write_file(file, html)


def _pareto(trend: Trend) -> list[tuple[str, int, float, float]]:
    """Kind, images, share and cumulated share of all defective images, the most frequent first."""
    totals = {kind: sum(group.kinds[kind] for group in trend.groups) for kind in trend.kinds if kind != trend.normal}
    whole = sum(totals.values()) or 1
    so_far = accumulate(totals.values())
    rows = zip(totals.items(), so_far, strict=True)
    return [(kind, count, count / whole, up_to / whole) for (kind, count), up_to in rows]


def _columns(trend: Trend, colors: dict[str, str]) -> list[dict[str, Any]]:
    """A stacked column a group, in pixels; good parts lie on top, so that defects share a base line."""
    step = WIDTH / len(trend.groups)
    order = [kind for kind in colors if kind != trend.normal] + [trend.normal]
    columns = []
    for index, group in enumerate(trend.groups):
        top, parts = float(HEIGHT - BOTTOM), []
        for kind in order:
            height = group.kinds[kind] / group.num_images * (HEIGHT - BOTTOM)
            top -= height
            if height:
                parts.append({"kind": kind, "y": round(top, 2), "height": round(height, 2), "count": group.kinds[kind]})
        left, width = round(step * (index + 0.06), 2), round(step * 0.88, 2)
        columns.append({"x": left, "width": width, "parts": parts, "group": group})
    return columns


def _ticks(trend: Trend) -> list[tuple[float, ImageGroup]]:
    """Groups that have their name below the chart."""
    step, every = WIDTH / len(trend.groups), -(-len(trend.groups) // MAX_TICKS)
    return [(round(step * (index + 0.5), 1), group) for index, group in enumerate(trend.groups) if index % every == 0]
