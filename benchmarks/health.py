# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Does health, measured without labels, rank good runs above bad ones? Rank correlation of each figure with NMI.

    python benchmarks/health.py --data ../shared/data --figure docs/images/health.png \
        --weights ../shared/weights/deit_tiny_patch16_224.safetensors --output runs/health \
        --mtd_runs runs/normal/*

Within each data set, all runs are ranked by a figure and by the NMI of their images; Spearman's coefficient compares
the two. What is measured once is kept in the output folder.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from health_runs import (
    DataSet,
    Run,
    cluster_runs,
    describe,
    generated_sets,
    mtd_sets,
    train_run,
    with_maps_of_others,
)
from matplotlib import pyplot as plt
from scipy.stats import spearmanr

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.metrics.health import FIGURES, health_figures, health_report
from anomalib_ncd.metrics.report import clustering_report
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.health import run_evidence

TRAINED_SETS = "BD"
TRAINED_EPOCHS = (3, 25)
KIND_COLOURS = {
    "Ward": "#0072b2",
    "k-means": "#56b4e9",
    "trained": "#d55e00",
    "maps of other images": "#009e73",
    "network of random weights": "#cc79a7",
    "random prototypes": "#999999",
}


def backbones(weights: Path) -> dict[str, dict[str, Any]]:
    """Settings of the encoders: trained on ImageNet, two kinds, and random."""
    deit = "deit_tiny_patch16_224"
    return {
        "DeiT-Tiny": {"backbone": deit, "backbone_weights": weights},
        "EfficientNet-Lite0": {"backbone": "offline"},
        "random weights": {"backbone": deit, "pretrained": False},
    }


def all_runs(data: DataSet, models: dict[str, AnomalyNcd], options: argparse.Namespace) -> Iterator[Run]:
    """All runs of a data set."""
    datamodule = data.datamodule()
    datamodule.setup()
    for name, model in models.items():
        yield from cluster_runs(data, name, describe(model, datamodule))
    others = with_maps_of_others(data, options.output / "maps_of_others" / data.name)
    yield from cluster_runs(data, "maps of others", describe(models["DeiT-Tiny"], others.datamodule()))
    if data.name in TRAINED_SETS:
        for epochs in TRAINED_EPOCHS:
            backbone = backbones(options.weights)["DeiT-Tiny"]
            yield train_run(data, backbone, epochs, options.output / "engine", data.num_classes)
    if data.name == "mini":
        for folder in options.mtd_runs:
            results = RunResults.load(folder / "results.npz")
            yield Run("mini", folder.name, "trained", results.batch, results.normal_slot)


def measure(run: Run) -> dict[str, Any]:
    """Figures, overall score and NMI of a run."""
    num_slots = run.batch.class_probabilities.shape[1]  # type: ignore[union-attr]
    names = [f"class_{slot + 1}" for slot in range(num_slots)]
    if run.normal_slot is not None:
        names = ["normal", *names[: num_slots - 1]]
    results = RunResults(run.batch, [], names, "", np.zeros((0, 2), np.float32), [], run.normal_slot)
    figures = health_figures(run_evidence(results, names))
    scores = clustering_report(run.batch.pred_class_id.numpy(), run.batch.class_id.numpy())  # type: ignore[union-attr]
    health = health_report(figures)["score"]
    kind = {"data": run.data, "run": run.name, "method": run.method, "num_slots": num_slots}
    return {**kind, "health": health, **figures, **scores}


def correlation(rows: list[dict[str, Any]], name: str) -> float:
    """Spearman's coefficient of a figure with NMI; NaN for fewer than five runs or a constant figure."""
    pairs = [(row[name], row["nmi"]) for row in rows if row[name] is not None and not math.isnan(row[name])]
    if len(pairs) < 5 or len({pair[0] for pair in pairs}) < 2:
        return math.nan
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Coefficients per figure and data set."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    print(f"| figure | mean | {' | '.join(sets)} |")
    print(f"| --- | --- |{' --- |' * len(sets)}")
    for name in ("health", *(figure.name for figure in FIGURES)):
        found = [correlation([row for row in rows if row["data"] == each], name) for each in sets]
        values = [math.nan if np.isnan(found).all() else np.nanmean(found), *found]
        print(f"| {name} | {' | '.join('' if math.isnan(value) else f'{value:.2f}' for value in values)} |")


def is_random(row: dict[str, Any]) -> bool:
    """Whether a run saw its regions through a network that never learnt anything."""
    return row["run"].startswith("random weights")


def print_fairness(rows: list[dict[str, Any]]) -> None:
    """Pairs of a trained and a clustered run of one data set and backbone: how often health chooses which."""
    clustered = [row for row in rows if row["run"].startswith("DeiT") and row["method"] in {"ward", "kmeans"}]
    pairs = [
        (trained, other)
        for trained in rows
        for other in clustered
        if trained["method"] == "trained" and other["data"] == trained["data"]
    ]
    print_choices("trained and clustered", pairs)
    print_choices("both of the right number of classes", [(a, b) for a, b in pairs if a["num_slots"] == b["num_slots"]])


def print_choices(title: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """How often health picks the better one of a pair, and what that costs."""
    if not pairs:
        return
    chosen = np.array([other["health"] > trained["health"] for trained, other in pairs])
    gain = np.array([other["nmi"] - trained["nmi"] for trained, other in pairs])
    is_right = chosen == (gain > 0)
    cost = np.where(is_right, 0, np.abs(gain))
    print(
        f"{len(pairs)} pairs, {title}: health picks the one with the higher NMI in {is_right.mean():.0%}; wrong picks "
        f"cost {cost.mean():.3f} NMI a pair, whose two differ by {np.abs(gain).mean():.3f}. It picks clusters in "
        f"{chosen.mean():.0%}, which are better in {np.mean(gain > 0):.0%}."
    )


def kind_of(row: dict[str, Any]) -> str:
    """What makes a run good or bad, for its colour."""
    if row["method"] == "random":
        return "random prototypes"
    if is_random(row):
        return "network of random weights"
    if row["run"].startswith("maps of others"):
        return "maps of other images"
    return {"ward": "Ward", "kmeans": "k-means"}.get(row["method"], row["method"])


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """NMI over health, one panel per data set."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = plt.subplots(3, 3, figsize=(9, 8.4), sharex=True, sharey=True, layout="constrained")
    for axis, name in zip(axes.flat, sets, strict=False):
        members = [row for row in rows if row["data"] == name]
        for kind, colour in KIND_COLOURS.items():
            points = [(row["health"], row["nmi"]) for row in members if kind_of(row) == kind]
            if points:
                axis.scatter(*zip(*points, strict=True), s=16, color=colour, alpha=0.8)
        axis.set_title(f"{name}: rank correlation {correlation(members, 'health'):.2f}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [axes[0, 0].scatter([], [], s=16, color=colour, label=kind) for kind, colour in KIND_COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9, frameon=False)
    figure.supxlabel("health, without labels")
    figure.supylabel("NMI of the images, with labels")
    figure.savefig(file, dpi=120)


def main() -> None:
    """Make and measure all runs, print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with mtd, mtd_anomaly_maps and steel_base; without it no MTD")
    parser.add_argument("--weights", type=Path, required=True, help="DeiT-Tiny weights")
    parser.add_argument("--output", type=Path, default=Path("runs/health"))
    parser.add_argument("--mtd_runs", nargs="*", type=Path, default=[], help="finished runs on MTD-mini")
    parser.add_argument("--sets", nargs="+", help="names of data sets, if not all")
    parser.add_argument("--figure", type=Path, help="file of the figure")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    models = {name: AnomalyNcd(**settings) for name, settings in backbones(options.weights).items()}
    groups = {"generated": list(generated_sets(options.output / "generated"))}
    if options.data:
        groups["MTD"] = list(mtd_sets(options.data, options.output / "mtd"))
    rows = []
    for title, sets in groups.items():
        found = []
        for data in (each for each in sets if not options.sets or each.name in options.sets):
            file = options.output / f"{data.name}.json"
            if not file.is_file():
                file.write_text(json.dumps([measure(run) for run in all_runs(data, models, options)]))
            found += json.loads(file.read_text())
        if not found:
            continue
        for which, part in (("", found), (" without random weights", [row for row in found if not is_random(row)])):
            print(f"\n{title}, {len(part)} runs{which}:\n")
            print_table(part)
        print()
        print_fairness(found)
        rows += found
    if options.figure:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
