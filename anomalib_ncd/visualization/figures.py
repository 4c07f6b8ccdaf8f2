# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The pictures of a run as arrays: gallery, regions of each class, confusion matrix, map of regions."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.classes.prediction import RegionMerging, first_slots
from anomalib_ncd.visualization.drawing import class_colours, font_families, shortened
from anomalib_ncd.visualization.gallery import draw_gallery

MAX_CELL_TEXTS = 30
EXAMPLES_PER_CLASS = 32
MAX_MAPPED_REGIONS = 20_000


def run_figures(
    batches: Sequence[NcdBatch],
    merging: RegionMerging,
    table: RegionTable | None = None,
    label_names: Sequence[str] = (),
    positions: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Draw what can be drawn of a run: ``gallery``, ``classes/<name>``, ``confusion``, ``map``, ``(h, w, 3)`` uint8.

    Without ``table`` there are no pictures of regions, without ``label_names`` no confusion matrix, without
    ``positions`` ``(R, 2)``, in the order of the batches, no map.
    """
    names = merging.class_names
    predicted = [batch for batch in batches if batch.region_pred_class_id is not None]
    figures: dict[str, np.ndarray] = {}
    if not predicted:
        return figures
    slots = np.array(first_slots(names))
    regions = slots[_joined(predicted, "region_pred_class_id")]
    if table is not None:
        figures["gallery"] = draw_gallery(predicted, names, table)
        for name in (names[slot] for slot in sorted(set(regions.tolist()))):
            figures[f"classes/{name}"] = draw_gallery(predicted, names, table, EXAMPLES_PER_CLASS, only=name)
    labelled = [batch for batch in predicted if batch.class_id is not None]
    if labelled and label_names:
        target, preds = _joined(labelled, "class_id"), slots[_joined(labelled, "pred_class_id")]
        if (target >= 0).any():
            figures["confusion"] = draw_confusion(*count_confusion(preds, target, names, label_names))
    if positions is not None:
        figures["map"] = draw_map(positions, regions, names, merging.normal_slot)
    return figures


def count_confusion(
    preds: np.ndarray, target: np.ndarray, class_names: Sequence[str], label_names: Sequence[str]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Count how often a true class, ``(N,)`` and not negative, was put into a discovered one.

    Returns counts ``(T, P)``, names of the T true classes, and of the P discovered ones that occur, ordered so that the
    classes that go together lie on the diagonal as far as they go.
    """
    known = target >= 0
    counts = np.zeros((len(label_names), len(class_names)), dtype=np.int64)
    np.add.at(counts, (target[known], preds[known]), 1)
    found = np.flatnonzero(counts.sum(axis=0))
    main = counts[:, found].argmax(axis=0)
    share = counts[main, found]
    found = found[np.lexsort((-share, main))]
    return counts[:, found], list(label_names), [class_names[index] for index in found.tolist()]


def draw_confusion(counts: np.ndarray, label_names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix ``(T, P)``: true classes in rows, discovered ones in columns; ``(h, w, 3)`` uint8.

    A cell is the darker the larger its share of the row. Beyond 30 classes on a side cells have no numbers.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(label_names), len(class_names)) or not counts.size:
        msg = f"`counts` must have shape {(len(label_names), len(class_names))} and not be empty, got {counts.shape}."
        raise ValueError(msg)
    rows, columns = counts.shape
    longer = max(rows, columns)
    cell = float(np.clip(14 / longer, 0.28, 0.8))
    figure = Figure(figsize=(columns * cell + 3.2, rows * cell + 3.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    size = float(np.clip(cell * 16, 5, 10))
    axes.set_xticks(range(columns), [shortened(name, 24) for name in class_names], rotation=90, fontsize=size)
    axes.set_yticks(range(rows), [shortened(name, 24) for name in label_names], fontsize=size)
    axes.set_xlabel("discovered class")
    axes.set_ylabel("true class")
    if longer <= MAX_CELL_TEXTS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if share[row, column] > 0.55 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=ink, fontsize=size)
    return _rendered(figure, [*label_names, *class_names])


def draw_map(
    positions: np.ndarray, classes: np.ndarray, class_names: Sequence[str], normal_slot: int | None = None
) -> np.ndarray:
    """Draw a map of regions at ``(R, 2)``, a colour per class, that of false alarms grey; ``(h, w, 3)`` uint8."""
    if np.shape(positions) != (len(classes), 2):
        msg = f"`positions` must have shape {(len(classes), 2)}, one row per region, got {np.shape(positions)}."
        raise ValueError(msg)
    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    of_region = np.array(first_slots(class_names))[np.asarray(classes)]
    colours = np.array(class_colours(class_names, normal_slot)) / 255
    size = float(np.clip(4000 / max(len(classes), 1), 4, 40))
    for slot in sorted(set(of_region.tolist())):
        members = np.asarray(positions)[of_region == slot]
        label = f"{shortened(class_names[slot], 24)} ({len(members)})"
        axes.scatter(members[:, 0], members[:, 1], s=size, color=colours[slot], alpha=0.8, linewidths=0, label=label)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        figure.legend(loc="outside right upper", fontsize=8, markerscale=1.5, ncols=1 + len(handles) // 36)
    return _rendered(figure, class_names)


def _joined(batches: Sequence[NcdBatch], name: str) -> np.ndarray:
    return torch.cat([getattr(batch, name) for batch in batches]).cpu().numpy()


def _rendered(figure: Figure, names: Sequence[str]) -> np.ndarray:
    families = font_families(names)
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
