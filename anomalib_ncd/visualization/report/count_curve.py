# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The curve behind an estimated number of classes, laid out for the report."""

from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 640, 190
LEFT, RIGHT, TOP, BOTTOM = 16, 16, 14, 34
MAX_TICKS = 20


@dataclass(frozen=True)
class CurvePoint:
    """A candidate: its number of classes, where it is drawn, and whether its number stands below it."""

    count: int
    x: float
    y: float
    score: float
    has_tick: bool


@dataclass(frozen=True)
class CountCurve:
    """What the section on the number of classes shows, in pixels."""

    sentence: str
    method: str  # what the scores are
    count: int
    points: list[CurvePoint]  # none where there was nothing to choose from
    line: str  # the points as an SVG polyline
    band: tuple[float, float]  # left edge and width of the range
    size: tuple[int, int] = (WIDTH, HEIGHT)
    base_y: int = HEIGHT - BOTTOM  # where the axis lies


def count_curve(estimate: dict[str, Any] | None) -> CountCurve | None:
    """Lay out the curve of an estimate; ``None`` where the number of classes was given."""
    if estimate is None:
        return None
    low, high, curve = estimate["low"], estimate["high"], estimate["curve"]
    counts, scores = [int(count) for count, _ in curve], [float(score) for _, score in curve]
    step = (WIDTH - LEFT - RIGHT) / max(1, len(counts))
    least = min(scores, default=0.0)
    span = (max(scores, default=0.0) - least) or 1.0
    every = -(-len(counts) // MAX_TICKS)
    points = [
        CurvePoint(
            count=count,
            x=round(LEFT + (index + 0.5) * step, 1),
            y=round(HEIGHT - BOTTOM - 8 - (score - least) / span * (HEIGHT - TOP - BOTTOM - 8), 1),
            score=score,
            has_tick=index % every == 0 or count == estimate["count"],
        )
        for index, (count, score) in enumerate(zip(counts, scores, strict=True))
    ]
    inside = [point.x for point in points if low <= point.count <= high]
    band = (round(inside[0] - step / 2, 1), round(inside[-1] - inside[0] + step, 1)) if inside else (0.0, 0.0)
    return CountCurve(
        sentence=_sentence(estimate["count"], low, high, has_curve=bool(curve)),
        method=estimate["method"],
        count=estimate["count"],
        points=points,
        line=" ".join(f"{point.x},{point.y}" for point in points),
        band=band,
    )


def _sentence(count: int, low: int, high: int, *, has_curve: bool) -> str:
    noun = "1 class, normal included, was" if count == 1 else f"{count} classes, normal included, were"
    if low == high:
        return f"{noun} estimated; samples of the regions agree on it." if has_curve else f"{noun} estimated."
    return f"{noun} estimated; between {low} and {high} are plausible."
