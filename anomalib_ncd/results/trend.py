# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Kinds of defect over time, and whether images have become other than those of the run."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from scipy.stats import betabinom, mannwhitneyu

from anomalib_ncd.results.tables import CLASSIFIER_NAME, LINES_NAME, UNKNOWN

GroupBy = Literal["day", "shift", "batch"]
SHIFT_HOURS = 8
FIRST_SHIFT_HOUR = 6


@dataclass
class ImageGroup:
    """Images of one day, shift or batch."""

    name: str  # day, begin of the shift, or name of the folder of results
    # Number of images of each kind; that of unknown ones is UNKNOWN
    kinds: Counter[str] = field(default_factory=Counter)
    # Of the largest region of each image that has one, to the nearest region of the run
    similarities: list[float] = field(default_factory=list)
    num_unknown: int = 0  # those of them that are unlike all of the run
    limit: int | None = None  # largest `num_unknown` that chance alone explains; None where nothing is compared
    # Probability of similarities as low as these by chance; None where nothing is compared
    p_value: float | None = None
    has_drifted: bool = False  # whether chance alone explains one of the two no more

    @property
    def num_images(self) -> int:
        """Images that could be used."""
        return self.kinds.total()

    def add(self, result: dict[str, Any], normal: str) -> None:
        """Add an image that could be used."""
        kind = UNKNOWN if result["unknown"] else normal if result["normal"] else result["class"]
        self.kinds[kind] += 1
        for largest in [region for region in result["regions"] if region["area"]][:1]:
            self.similarities.append(largest["neighbour_similarity"])
            self.num_unknown += largest["unknown"]

    def compare(self, run_similarities: Sequence[float], false_reject_rate: float, false_alarm_rate: float) -> None:
        """Compare the regions with those of the run; each of the two tests has half of the rate of false alarms."""
        if self.similarities:
            num_images, num_references = len(self.similarities), len(run_similarities)
            self.limit = unknown_limit(num_images, num_references, false_reject_rate, false_alarm_rate / 2)
            self.p_value = float(mannwhitneyu(self.similarities, run_similarities, alternative="less").pvalue)
            self.has_drifted = self.num_unknown > self.limit or self.p_value < false_alarm_rate / 2


@dataclass(frozen=True)
class Trend:
    """What the page of trends shows: groups in order, all kinds, the most frequent first, and which of them is good."""

    groups: tuple[ImageGroup, ...]
    kinds: tuple[str, ...]
    normal: str
    false_alarm_rate: float


def read_trend(folders: Sequence[Path], by: GroupBy = "day", false_alarm_rate: float = 0.001) -> Trend:
    """Read what ``classify`` left, and look for drift.

    The largest region of each image is compared, as those of one image are alike. In a group without drift their
    similarity to the nearest region of the run is distributed as that of the run's own regions to those of other
    images. Two tests look for less: of all similarities (Mann and Whitney, 1947), and of the number below the threshold
    of *unknown*, which is beta-binomial, as the threshold is a quantile of the run's similarities.
    ``FileNotFoundError`` if a folder holds no results; ``ValueError`` if the results are of several classifiers, there
    are none, or the rate is out of range. Groups are the ``"day"`` or ``"shift"`` (of eight hours, from six o'clock) in
    which an image was written, or a ``"batch"``, a folder each; ``false_alarm_rate`` is above 0 and below 1.
    """
    if not 0 < false_alarm_rate < 1:
        msg = f"`false_alarm_rate` must be above 0 and below 1, got {false_alarm_rate}; 0.001 is one group in 1,000."
        raise ValueError(msg)
    classifier = _common_classifier(folders)
    groups: dict[str, ImageGroup] = {}
    for folder in folders:
        with (folder / LINES_NAME).open(encoding="utf-8") as stream:
            for result in map(json.loads, stream):
                if result["error"] is None:
                    name = folder.name if by == "batch" else _begin(result["modified"], by)
                    groups.setdefault(name, ImageGroup(name)).add(result, classifier["normal"])
    if not groups:
        msg = f"No image of {', '.join(map(str, folders))} could be used; see errors.csv there."
        raise ValueError(msg)
    if classifier["similarities"] is not None:
        for group in groups.values():
            group.compare(classifier["similarities"], classifier["false_reject_rate"], false_alarm_rate)
    ordered = list(groups.values()) if by == "batch" else sorted(groups.values(), key=lambda group: group.name)
    totals = sum((group.kinds for group in ordered), Counter())
    return Trend(
        tuple(ordered), tuple(kind for kind, _ in totals.most_common()), classifier["normal"], false_alarm_rate
    )


def unknown_limit(num_images: int, num_references: int, reject_rate: float, false_alarm_rate: float) -> int:
    """Largest number of unknown among new regions, each of another image, that chance explains.

    `num_references` regions of the run drew the line below which a share of `reject_rate` may fall; chance passes the
    limit with a probability of `false_alarm_rate` at most.
    """
    place = max(1, int(round(reject_rate * (num_references + 1), 9)))
    return int(betabinom.isf(false_alarm_rate, num_images, place, num_references + 1 - place))


def _common_classifier(folders: Sequence[Path]) -> dict[str, Any]:
    """What the folders say of their classifier."""
    found: dict[str, Any] = {}
    for folder in folders:
        file = folder / CLASSIFIER_NAME
        if not file.is_file():
            msg = f"{folder} holds no {CLASSIFIER_NAME}; give folders that `anomalib-ncd classify` wrote."
            raise FileNotFoundError(msg)
        classifier = json.loads(file.read_text(encoding="utf-8"))
        if found and classifier != found:
            msg = f"{folder} holds results of another classifier than {folders[0]}; make a page of each."
            raise ValueError(msg)
        found = classifier
    return found


def _begin(modified: str | None, by: GroupBy) -> str:
    """Day or begin of the shift, of this machine's clock."""
    if modified is None:
        return "no date"
    time = datetime.fromisoformat(modified).astimezone()
    if by == "day":
        return f"{time:%Y-%m-%d}"
    hours = (time.hour - FIRST_SHIFT_HOUR) % SHIFT_HOURS
    return f"{time - timedelta(hours=hours):%Y-%m-%d %H}:00"
