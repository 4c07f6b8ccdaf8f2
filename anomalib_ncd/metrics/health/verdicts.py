# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the figures of a run's health mean: a level for each, the advice that follows, and one score over all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["good", "warning", "problem"]

SCORE_LIMITS = (0.65, 0.5)
SCORE_ADVICE = {
    "good": "",
    "warning": "Look through the classes and the doubtful regions first.",
    "problem": "First see to what is marked below.",
}


@dataclass(frozen=True)
class HealthFigure:
    """How a figure is judged.

    Attributes:
        name: Its name in ``metrics.json``.
        title: What it says, for people; ``{value}`` stands for the value.
        good: The level is good from here on …
        warning: … and a warning from here on, else a problem. Where ``good`` is the smaller of the two, low is good.
        advice: What to do where it isn't good.
        as_percent: How the value is written.
    """

    name: str
    title: str
    good: float
    warning: float
    advice: str
    as_percent: bool = False

    def level(self, value: float) -> Level:
        """Judge a value.

        Example:
            >>> figure = HealthFigure("empty_masks", "", good=0.2, warning=0.5, advice="")
            >>> figure.level(0.1), figure.level(0.5), figure.level(0.6)
            ('good', 'warning', 'problem')
        """
        sign = 1 if self.good > self.warning else -1
        if sign * value >= sign * self.good:
            return "good"
        return "warning" if sign * value >= sign * self.warning else "problem"

    def text(self, value: float) -> str:
        """The title with the value in it."""
        return self.title.format(value=f"{value:.0%}" if self.as_percent else f"{value:.2f}")


FIGURES = (
    HealthFigure(
        "neighbour_agreement",
        "Regions that look alike share a class: {value} (1 always, 0 as by chance).",
        good=0.85,
        warning=0.7,
        advice="The classes cut through what looks alike. Try another number of classes, or --method cluster.",
    ),
    HealthFigure(
        "silhouette",
        "The classes are apart from each other: silhouette {value} (at most 1).",
        good=0.2,
        warning=0.1,
        advice="Kinds of defect run into each other. A stronger backbone, tighter masks or fewer classes may help.",
    ),
    HealthFigure(
        "resample_stability",
        "Clusters stay the same when a fifth of the regions is left out: {value} (1 always, 0 as by chance).",
        good=0.7,
        warning=0.45,
        advice="This number of clusters isn't in the data. Try fewer or more classes, or give more images.",
    ),
    HealthFigure(
        "resample_agreement",
        "The classes are those that resampled clusters find: {value} (1 wholly, 0 as by chance).",
        good=0.6,
        warning=0.3,
        advice="Clustering sees other classes than this run; compare the galleries of both methods.",
    ),
    HealthFigure(
        "head_agreement",
        "The heads of the network agree with each other: {value} (1 wholly, 0 as by chance).",
        good=0.7,
        warning=0.45,
        advice="The result depends on the random start. Train with other seeds, more epochs or fewer classes.",
    ),
    HealthFigure(
        "confidence",
        "A region's class has a mean probability of {value}.",
        good=0.7,
        warning=0.5,
        advice="Many regions lie between classes; look through the doubtful ones.",
        as_percent=True,
    ),
    HealthFigure(
        "smallest_class",
        "The smallest class has {value} of the regions.",
        good=0.02,
        warning=0.005,
        advice="A class stayed empty or nearly so: there may be fewer kinds than classes asked for.",
        as_percent=True,
    ),
    HealthFigure(
        "largest_class",
        "The largest class has {value} of the regions.",
        good=0.5,
        warning=0.7,
        advice="Most regions fell into one class: it may hold several kinds. Ask for more classes.",
        as_percent=True,
    ),
    HealthFigure(
        "effective_share",
        "By their sizes, the classes count as {value} of their number.",
        good=0.6,
        warning=0.4,
        advice="Few classes hold nearly all regions; look whether the small ones are kinds of their own.",
        as_percent=True,
    ),
    HealthFigure(
        "empty_masks",
        "In {value} of the regions the detector's map has no main element; the whole image stands in, or the peak.",
        good=0.1,
        warning=0.3,
        advice="The maps show nothing there. Look at them: the detector may be weak, or the images good.",
        as_percent=True,
    ),
    HealthFigure(
        "normal_separation",
        "Regions called normal have lower anomaly scores than others in {value} of all pairs.",
        good=0.8,
        warning=0.6,
        advice="What is called normal is no false alarm by its score: look whether that class is a defect.",
        as_percent=True,
    ),
)


def health_report(figures: Mapping[str, float]) -> dict[str, Any]:
    """Judge figures.

    Args:
        figures: Of :func:`~anomalib_ncd.metrics.health.figures.health_figures`; NaN where one has no meaning.

    Returns:
        ``score`` (0 to 1, see :func:`overall_score`; ``None`` where it can't be computed), its ``level`` and
        ``advice``, the ``effective_number`` of classes, and under ``figures`` the ``value``, ``level`` and ``advice``
        of each; the last is empty where the figure is good. Figures without meaning are left out.

    Example:
        >>> report = health_report({"empty_masks": 0.4, "confidence": float("nan")})
        >>> report["score"], list(report["figures"]), report["figures"]["empty_masks"]["level"]
        (None, ['empty_masks'], 'problem')
    """
    judged = {}
    for figure in FIGURES:
        value = figures.get(figure.name, math.nan)
        if not math.isnan(value):
            level = figure.level(value)
            judged[figure.name] = {"value": value, "level": level, "advice": "" if level == "good" else figure.advice}
    score, number = overall_score(figures), figures.get("effective_number", math.nan)
    report = {"effective_number": None if math.isnan(number) else number, "figures": judged}
    if math.isnan(score):
        return {"score": None, "level": "problem", "advice": "There are too few regions or no features.", **report}
    good, warning = SCORE_LIMITS
    level = "good" if score >= good else "warning" if score >= warning else "problem"
    return {"score": score, "level": level, "advice": SCORE_ADVICE[level], **report}


def overall_score(figures: Mapping[str, float]) -> float:
    """One score: the agreement of regions that look alike, times how much the classes tell apart.

    Agreement alone is highest for few classes, or a single one. Its factor is Simpson's index of as many equal classes
    as the sizes come to: ``1 - 1 / effective classes``. Both are known for every method, and neither looks at features
    that a method was trained on or clusters by. Chosen on generated data, see docs/guides/trust.md.

    Args:
        figures: ``neighbour_agreement`` and ``effective_number``.

    Returns:
        From 0 to 1, with two classes at most 0.5; 0 for a single class, NaN where there is nothing to
        measure.

    Example:
        >>> overall_score({"neighbour_agreement": 0.8, "effective_number": 4.0})
        0.6000000000000001
    """
    agreement, number = (figures.get(name, math.nan) for name in ("neighbour_agreement", "effective_number"))
    if number == 1:
        return 0.0
    if math.isnan(agreement) or math.isnan(number) or number < 1:
        return math.nan
    return max(0.0, agreement * (1 - 1 / number))
