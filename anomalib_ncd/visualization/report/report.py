# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``report.html``: what a run found, in one file that opens offline."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.writing import write_file
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.visualization.gallery import region_tile
from anomalib_ncd.visualization.page import packaged, render
from anomalib_ncd.visualization.report.content import (
    TILE_MARGIN,
    ClassCard,
    LoadRegion,
    ReportContent,
)
from anomalib_ncd.visualization.report.correcting import correcting_data
from anomalib_ncd.visualization.report.count_curve import count_curve
from anomalib_ncd.visualization.report.crops import TileSheets, tile_sheets

SCRIPTS = ("marks", "map", "names", "likeness", "corrections")
MAX_MAP_REGIONS = 10_000
LARGE_TILE_PX, SMALL_TILE_PX, MAX_LARGE_TILES = 96, 64, 2000
SCORES = {"nmi": "NMI", "ari": "ARI", "accuracy": "Accuracy", "macro_f1": "Macro-F1"}


def write_report(
    file: str | Path,
    results: RunResults,
    class_names: Sequence[str],
    images: Sequence[ImageResult],
    load: LoadRegion,
    metrics: dict[str, Any] | None = None,
    title: str = "Discovered classes",
    peaks_xy: Sequence[tuple[float, float]] | None = None,
    find_more: str = "",
    corrected: Sequence[int] = (),
    sheets: TileSheets | None = None,
) -> None:
    """Write the report of a run, which needs no other file and no network. A reader never sees a half-written one.

    ``results`` are those under these names of the slots, see :meth:`RunResults.showing`, ``images`` what they say, and
    ``metrics`` what ``metrics.json`` says. ``load`` gives pixels ``(h, w, 3)`` uint8 and mask ``(h, w)`` bool of a
    region by its index in the batch, as which regions ``corrected`` before go, too. ``peaks_xy``, where the map of each
    image is highest, in pixels, is marked where nothing was found, and ``find_more`` says what would find more.
    ``sheets`` are crops from another report of these regions, else read.
    """
    file = Path(file)
    content = ReportContent(results, class_names, images, load, metrics, peaks_xy)
    shown = _regions_of_map(len(results.region_position))
    tile_px = LARGE_TILE_PX if len(shown) <= MAX_LARGE_TILES else SMALL_TILE_PX
    sheets = sheets or tile_sheets((region_tile(*load(int(region)), tile_px, TILE_MARGIN) for region in shown), tile_px)
    run = file.absolute().parent.name
    data = _script_data(results, content, shown, sheets)
    normal = len(content.cards) if content.normal else None
    data |= correcting_data(results, class_names, shown, np.array(data["classOf"], dtype=int), normal, corrected)
    data |= {"run": run, "slots": results.slot_names, "hasNormal": results.normal_slot is not None}
    data["normalName"] = "" if results.normal_slot is None else class_names[results.normal_slot]
    script = "".join(packaged(f"report/page/{name}.js") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    html = render(
        "report/page/template.html",
        title=title,
        run=run,
        content=content,
        find_more=find_more,
        facts=list((metrics or {}).get("facts", {}).values()),
        num_classes=count_curve(results.num_classes_estimate),
        scores=_scores(metrics),
        normal_scores=_normal_scores(metrics),
        found=_found_defects(metrics),
        confusion=_confusion(metrics),
        slots=_slots(results, class_names),
        num_regions=len(results.region_position),
        num_on_map=len(shown),
        places={int(region): place for place, region in enumerate(shown)},
        data=htmlsafe_json_dumps(data, separators=(",", ":")),
        script=Markup(script),  # noqa: S704 - a file of this package
        script_digest=digest,
    )
    write_file(file, html)


def _regions_of_map(num_regions: int) -> np.ndarray:
    """Regions that the map shows: all, or a sample where they would be too many."""
    if num_regions <= MAX_MAP_REGIONS:
        return np.arange(num_regions)
    return np.sort(np.random.default_rng(0).choice(num_regions, MAX_MAP_REGIONS, replace=False))


def _slots(results: RunResults, class_names: Sequence[str]) -> list[dict[str, str]]:
    """What the fields for names start with: each slot's given name, and the slot that it is the same as."""
    slots = []
    for slot, (found, given) in enumerate(zip(results.slot_names, class_names, strict=True)):
        first = list(class_names).index(given)
        same = "" if first == slot else results.slot_names[first]
        slots.append({"slot": found, "name": "" if given == found or same else given, "same": same})
    return slots


def _scores(metrics: dict[str, Any] | None) -> list[tuple[str, int, list[str]]]:
    rows = []
    for level in ("image", "region"):
        report = (metrics or {}).get(level, {})
        for title, part in ((f"{level.capitalize()}s", report), ("… defects alone", report.get("defects"))):
            if part and "nmi" in part:
                rows.append((title, part["count"], [f"{part[score]:.3f}" for score in SCORES]))
    return rows


def _found_defects(metrics: dict[str, Any] | None) -> str:
    """What was found of labelled defects, in a sentence; empty without."""
    report = (metrics or {}).get("defects")
    if not report or not report["count"]:
        return ""
    false = "" if report["false_alarms"] is None else f", of which {report['false_alarms']:.1%} lie on no defect"
    return (
        f"{report['recall']:.1%} of {report['count']:,} defects have a region of their own, "
        f"{report['touched']:.1%} are touched by any of the {report['num_regions']:,} regions{false}. "
        f"The sets of classes of images have a micro-F1 of {report['images']['micro_f1']:.3f}."
    )


def _normal_scores(metrics: dict[str, Any] | None) -> list[tuple[str, int, list[str]]]:
    """Rows of the table about *normal* among false alarms."""
    rows = []
    for level, title in (("image", "Good images"), ("region", "Regions of good images")):
        report = (metrics or {}).get(level, {}).get("normal")
        if report:
            shares = [report[name] for name in ("recall", "precision", "defects_lost")]
            rows.append((title, report["false_alarms"], ["" if share is None else f"{share:.3f}" for share in shares]))
    return rows


def _confusion(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    """Confusion of images, columns in the order of the classes that they were matched with."""
    report = (metrics or {}).get("image", {})
    if not report.get("confusion"):
        return None
    confusion, matching = report["confusion"], report["matching"]
    columns = list(next(iter(confusion.values())))
    labels = list(confusion)
    columns.sort(key=lambda name: labels.index(matching[name]) if matching.get(name) in labels else len(labels))
    rows = []
    for label, counts in confusion.items():
        total = max(1, sum(counts.values()))
        cells = [(counts[name], counts[name] / total, matching.get(name) == label) for name in columns]
        rows.append((label, sum(counts.values()), cells))
    return {"columns": columns, "rows": rows}


def _script_data(results: RunResults, content: ReportContent, shown: np.ndarray, sheets: TileSheets) -> dict[str, Any]:
    cards: list[ClassCard] = [*content.cards, *([content.normal] if content.normal else [])]
    class_of_slot = {card.slots[0]: number for number, card in enumerate(cards)}
    certainty = content.certainty
    names = results.slot_names
    return {
        "classes": [
            {
                "name": card.name,
                "color": card.color,
                "slot": names[card.slots[0]],
                "slots": [names[i] for i in card.slots],
            }
            for card in cards
        ],
        "images": results.image_keys,
        "x": np.round(results.region_position[shown, 0].astype(float), 4).tolist(),
        "y": np.round(results.region_position[shown, 1].astype(float), 4).tolist(),
        "classOf": [class_of_slot[slot] for slot in certainty.slot[shown].tolist()],
        "second": [class_of_slot.get(slot, -1) for slot in certainty.runner_up[shown].tolist()],
        "value": np.round(certainty.value[shown].astype(float), 3).tolist(),
        "doubtful": certainty.is_doubtful[shown].astype(int).tolist(),
        "unknown": content.is_unknown[shown].astype(int).tolist(),
        "imageOf": results.batch.region_image_index.numpy()[shown].tolist(),
        "tile": {"px": sheets.tile_px, "perRow": sheets.tiles_per_row, "sheets": sheets.data_uris},
    }
