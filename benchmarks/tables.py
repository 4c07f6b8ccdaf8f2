# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Write the tables of the docs from ``benchmarks/results``: ``python benchmarks/tables.py``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, and whatever stands there is replaced. A row is a
case; its newest commit counts, with all seeds of that commit. With ``--check`` nothing is written, and it is an error
if a table isn't what the results say.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import leave_one_out
import rows
from cases import CASES

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = Path(__file__).parent / "results"
MARKERS = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
TAKEN_OVER = "†"


@dataclass(frozen=True)
class Table:
    """A table of the docs; its name is the topic of its cases.

    Attributes:
        labels: Headings of the cells that a case's label gives.
        metrics: Metrics and their headings.
        form: How figures are written.
    """

    labels: str
    metrics: dict[str, str]
    form: str = ".3f"


SCORES = {"nmi": "NMI", "ari": "ARI", "accuracy": "accuracy", "macro_f1": "macro-F1"}
NORMAL = {"normal_recall": "false alarms found", "normal_defects_lost": "defects lost"}
LINE = {"read_ms": "read", "detector_ms": "detector", "crops_ms": "regions", "encoder_ms": "encoder"}
CORRECTED = {"naming": "naming", "random": "random", "naming_proposed": "naming, proposed", "proposed": "proposed"}
TABLES = {
    "discovery": Table("data | network | way", SCORES | NORMAL),
    "base_sets": Table("data | network | base", SCORES),
    "number_of_classes": Table(
        "data | network | normal images",
        {"true": "classes", "count": "estimate", "low": "at least", "high": "at most", "nmi": "NMI"},
        ".4g",
    ),
    "corrections": Table(
        "data | network",
        {"naming": "naming alone"}
        | {f"{kind}_{number}": f"{title}, {number}" for number in (20, 40) for kind, title in CORRECTED.items()},
    ),
    "held_out": Table(
        "data | network | way",
        {"nmi_run": "NMI of the run", "nmi": "NMI", "accuracy_run": "accuracy of the run", "accuracy": "accuracy"}
        | {"names": "under names", "unknown": "unknown"},
    ),
    "unknown": Table(
        "data | network | normal images",
        {"auroc": "AUROC", "known_unknown": "known called unknown", "new_unknown": "new called unknown"},
    ),
    "detectors": Table(
        "data | detector",
        {"good_images": "good images", "auroc": "AUROC", "fit_s": "seconds to fit", "predict_ms": "ms an image"}
        | {"nmi": "NMI of the classes", "accuracy": "accuracy"},
        ".3g",
    ),
    "regions": Table(
        "data | method",
        {"defects with a region of their own": "defects with a region of their own, %"}
        | {"regions on no defect": "regions on no defect, %", "defective images touched": "defective images touched, %"}
        | {"good images with a region": "good images with a region, %", "ms an image": "ms an image"},
        ".4g",
    ),
    "speed_regions": Table(
        "method", {"map_ms": "map and image of 256², ms", "image_ms": "640² with 10 elements, ms"}, ".3g"
    ),
    "speed_mebin": Table(
        "maps | size", {"ms": "MEBin, ms", "literal_ms": "literal sweep, ms", "ratio": "times as fast"}, ".3g"
    ),
    "speed_command": Table(
        "command",
        {"seconds": "seconds", "baseline_seconds": "of the baseline", "ratio": "ratio"},
        ".4g",
    ),
    "deploy_many": Table(
        "way",
        {"images_a_second": "images a second", "early_mb": "MB after 1,000 images", "mb": "MB after 20,000"},
        ".4g",
    ),
    "deploy_latency": Table(
        "runtime",
        LINE | {"merge_ms": "merging", "together_ms": "together", "together_p99_ms": "99th percentile"},
        ".3g",
    ),
}


def render(name: str, results: Path) -> str:
    """A table in Markdown; cases without figures are left out."""
    if name == "leave_one_out":
        return leave_one_out.render(results)
    table, found = TABLES[name], rows.read(results / f"{name}.csv")
    headings = f"| {table.labels} | {' | '.join([*table.metrics.values(), 'seeds', 'commit'])} |"
    lines = [headings, "|" + " --- |" * (headings.count("|") - 1)]
    for case in (case for case in CASES.values() if case.topic == name):
        figures = rows.newest([row for row in found if row.case == case.name])
        if figures:
            cells = [_cell([row for row in figures if row.metric == metric], table.form) for metric in table.metrics]
            mark = TAKEN_OVER if figures[0].command else ""
            seeds = len({seed for row in figures for seed in row.seed.split()})
            lines.append(f"| {case.label} | {' | '.join([*cells, str(seeds), figures[0].commit + mark])} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else "Nothing is measured yet.\n"


def _cell(found: list[rows.Row], form: str) -> str:
    """Mean and spread of the seeds; empty where nothing is measured."""
    values = [row.value for row in found if not math.isnan(row.value)]
    if not values:
        return ""
    spread = f"{statistics.stdev(values):{form}}" if len(values) > 1 else found[-1].spread
    return f"{statistics.mean(values):{form}}" + (f" ± {spread}" if spread else "")


def write(file: Path, results: Path, *, check: bool = False) -> bool:
    """Replace the tables of a file, or only look; whether it was as it should be.

    Raises:
        ValueError: If a marker names no table.
    """
    text = file.read_text(encoding="utf-8")
    for _, name, _ in MARKERS.findall(text):
        if name not in {*TABLES, "leave_one_out"}:
            msg = f"{file} asks for the table {name!r}; there are {sorted(TABLES)} and 'leave_one_out'."
            raise ValueError(msg)
    made = MARKERS.sub(lambda match: match[1] + render(match[2], results) + match[3], text)
    if made != text and not check:
        file.write_text(made, encoding="utf-8")
    return made == text


def main() -> None:
    """Write or check the tables of all docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a table is out of date")
    check = parser.parse_args().check
    changed = [file.name for file in sorted(DOCS.rglob("*.md")) if not write(file, RESULTS, check=check)]
    if changed:
        print(f"{'Out of date' if check else 'Written'}: {', '.join(changed)}")
    sys.exit(bool(check and changed))


if __name__ == "__main__":
    main()
