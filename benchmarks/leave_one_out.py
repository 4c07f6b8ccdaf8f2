# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the other data sets would choose for each one, of the figures in ``benchmarks/results/discovery.csv``."""

from __future__ import annotations

import statistics
from pathlib import Path

import rows
from cases import BACKBONES, SETS

MEASURED_ON = {"mini": "tiles", "transistor": "normal", "plates": "normal", "deeppcb": "normal"}
DEFAULT = "EfficientNet-Lite0, good images"
Score = tuple[float, float]  # NMI and accuracy


def render(results: Path) -> str:
    """A table in Markdown: network and description with the highest mean NMI on the others, and its scores here."""
    lines = _lines(results / "discovery.csv")
    if DEFAULT not in lines:
        return "Nothing is measured yet.\n"
    text = f"| left out | chosen on the others | NMI, accuracy | of the default | best here | |\n|{' --- |' * 6}\n"
    for data in MEASURED_ON:
        mean = {
            name: statistics.mean(score[0] for other, score in scores.items() if other != data)
            for name, scores in lines.items()
        }
        chosen, best = max(mean, key=lambda name: mean[name]), max(lines, key=lambda name: lines[name][data])
        cells = [
            f"{nmi:.3f}, {accuracy:.3f}" for nmi, accuracy in (lines[each][data] for each in (chosen, DEFAULT, best))
        ]
        text += f"| {' | '.join([SETS[data], chosen, *cells, best])} |\n"
    return text


def _lines(file: Path) -> dict[str, dict[str, Score]]:
    """Scores on each data set, by network and description, where all of them are measured."""
    found = rows.read(file)
    lines: dict[str, dict[str, Score]] = {}
    for key, (network, _) in BACKBONES.items():
        for title, is_compared in (("plain", False), ("good images", True)):
            scores = {
                data: score
                for data, images in MEASURED_ON.items()
                if (score := _score(found, f"discovery-{data}-{key}-cluster" + is_compared * f"-{images}"))
            }
            lines |= {f"{network}, {title}": scores} if len(scores) == len(MEASURED_ON) else {}
    return lines


def _score(found: list[rows.Row], case: str) -> Score | None:
    """Means over the seeds; ``None`` where the case isn't measured."""
    newest = rows.newest([row for row in found if row.case == case])
    values = [[row.value for row in newest if row.metric == metric] for metric in ("nmi", "accuracy")]
    return (statistics.mean(values[0]), statistics.mean(values[1])) if newest else None
