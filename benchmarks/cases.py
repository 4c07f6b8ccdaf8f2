# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What can be measured: a case is a row, told by its name; the tables of the docs are made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from anomalib_ncd.settings import PAPER, TrainingSettings

DEIT = "deit_tiny_patch16_224"
BACKBONES = {
    "deit": ("DeiT-Tiny", DEIT),
    "lite": ("EfficientNet-Lite0", "offline"),
    "both": ("both", f"offline+{DEIT}"),  # for clusters alone
}
SETS = {"mini": "MTD-mini", "mtd": "MTD", "transistor": "transistor", "plates": "drawn plates", "deeppcb": "DeepPCB"}
DETECTORS = {
    "patchcore": "small Patchcore",
    "patchcore_fine": "small Patchcore, a finer stage as well",
    "padim": "PaDiM, same stages",
}
PLATE_KINDS = (3, 5, 8, 12)
FEW = (5, 20)

DEFAULTS = TrainingSettings(merging_temperature=50.0)  # the paper's T for MTD
PAPERS = replace(PAPER, merging_temperature=50.0, num_cached_views=8)  # fresh views take an hour a seed


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: Name in the command line and the results.
        topic: File of the results, without ending.
        measure: Function that measures it, see ``measures.py``.
        label: First cells of its row in the docs, divided by ``|``.
        data: Data set, see ``data_sets.py``.
        backbone: timm name, or ``"offline"``.
        method: See :func:`anomalib_ncd.discover`.
        normal: Normal images: all of the data set, or those of tiles that no test image shows.
        num_normal: So many of them, drawn at random.
        base: Labelled base classes of the data set, or painted ones.
        num_novel_classes: Number of classes; that of the labels where ``None``.
        training: How classes are learnt.
    """

    name: str
    topic: str
    measure: str
    label: str
    data: str = "mini"
    backbone: str = "offline"
    method: Literal["cluster", "train"] = "cluster"
    normal: Literal["all", "other tiles"] | None = None
    num_normal: int | None = None
    base: Literal["labelled", "synthetic"] | None = None
    num_novel_classes: int | Literal["auto"] | None = None
    training: TrainingSettings = DEFAULTS


@dataclass(frozen=True)
class Setup:
    """Where a case finds what it needs.

    Attributes:
        data: Folder of the data sets.
        weights: Weights of DeiT-Tiny; timm's where ``None``.
        work: Folder for what is drawn, linked and discovered; it goes afterwards.
        seed: Seed of the run.
        max_epochs: Epochs of training.
        baseline: Another checkout to compare with.
    """

    data: Path | None
    weights: Path | None
    work: Path
    seed: int = 0
    max_epochs: int = 50
    baseline: Path | None = None


def _networks(name: str, topic: str, measure: str, label: str, data: str, template: Case | None = None) -> list[Case]:
    """A case for each network."""
    template = template or Case("", "", "", "")
    return [
        replace(
            template,
            name=f"{topic}-{data}-{key}{name and '-' + name}",
            topic=topic,
            measure=measure,
            label=f"{SETS.get(data, data)} | {title}{label and ' | ' + label}",
            data=data,
            backbone=backbone,
        )
        for key, (title, backbone) in BACKBONES.items()
        if key == "deit" or template.training.empty_mask == "region"  # the paper's is for ViTs alone
        if key != "both" or (topic in {"discovery", "unknown"} and template.method == "cluster")
    ]


_PLAIN = Case("", "", "", "")
WAYS = {
    "cluster": ("clusters", _PLAIN),
    "cluster-normal": ("clusters, normal images", replace(_PLAIN, normal="all")),
    "cluster-tiles": ("clusters, normal images of other tiles", replace(_PLAIN, normal="other tiles")),
    **{
        f"cluster-tiles-{count}": (
            f"clusters, {count} normal images of other tiles",
            replace(_PLAIN, normal="other tiles", num_normal=count),
        )
        for count in FEW
    },
    **{
        f"cluster-normal-{count}": (
            f"clusters, {count} normal images",
            replace(_PLAIN, normal="all", num_normal=count),
        )
        for count in FEW
    },
    "train": ("training, labelled base", replace(_PLAIN, method="train", base="labelled")),
    "train-normal": ("training, normal images", replace(_PLAIN, method="train", normal="all")),
    "paper": (
        "paper's preset with 8 cached views, labelled base",
        replace(_PLAIN, method="train", base="labelled", training=PAPERS),
    ),
}
BASES = {
    "none": ("none", replace(_PLAIN, method="train")),
    "synthetic": ("synthetic", replace(_PLAIN, method="train", base="synthetic")),
    "synthetic-normal": ("synthetic, normal images", replace(_PLAIN, method="train", base="synthetic", normal="all")),
    "steel": ("labelled", replace(_PLAIN, method="train", base="labelled")),
}


def _allowed(data: str, way: Case) -> bool:
    """Whether a data set has what a way needs."""
    if way.num_normal is not None and (data, way.normal) not in {
        ("mini", "other tiles"),
        ("plates", "all"),
        ("deeppcb", "all"),
    }:
        return False
    if data == "deeppcb":
        return way.method == "cluster" and way.normal != "other tiles"
    if data in {"transistor", "plates"} and way.normal == "other tiles":
        return False
    return data != "transistor" or way.base is None


def _all() -> list[Case]:
    """All cases."""
    cases: list[Case] = []
    for data in SETS:
        for name, (label, way) in WAYS.items():
            if _allowed(data, way):
                cases += _networks(name, "discovery", "discovery", label, data, way)
    for data in ("mini", "mtd"):
        for name, (label, way) in BASES.items():
            cases += _networks(name, "base_sets", "discovery", label, data, way)
    auto = replace(_PLAIN, num_novel_classes="auto")
    for data in ("mini", *(f"plates{count}" for count in PLATE_KINDS)):
        cases += _networks("", "number_of_classes", "number_of_classes", "", data, auto)
        cases += _networks("normal", "number_of_classes", "number_of_classes", "", data, replace(auto, normal="all"))
    for name in ("cluster", "cluster-normal", "train"):
        label, way = WAYS[name]
        cases += _networks(name, "held_out", "held_out", label, "mtd", way)
    for data in ("mini", "mtd", "deeppcb", "transistor", "plates12"):
        for name in ("cluster", "cluster-tiles" if data == "mini" else "cluster-normal"):
            cases += _networks(name, "unknown", "unknown", "", data, WAYS[name][1])
    return [
        *(_with_normal_column(case) for case in cases),
        *_corrections(),
        *(
            Case(f"regions-{data}-{method}", "regions", f"regions_{method}", f"{data} | {method}", data)
            for data in ("mtd", "deeppcb", "transistor", "plates")
            for method in ("elements", "mebin")
        ),
        *(
            Case(f"speed-regions-{method}", "speed_regions", f"regions_speed_{method}", method, "")
            for method in ("elements", "mebin")
        ),
        *(
            Case(f"mebin-{maps}-{size}", "speed_mebin", "mebin", f"{maps} | {size}²", maps)
            for size in (256, 512)
            for maps in ("real", "noise", "smooth noise")
        ),
        *(
            Case(
                f"detectors-{data}-{kind}",
                "detectors",
                f"detector_{kind}",
                f"{SETS[data]} | {title}",
                data,
                normal="all",
            )
            for data in ("mini", "transistor")
            for kind, title in DETECTORS.items()
        ),
        Case("help", "speed_command", "help_seconds", "`anomalib-ncd --help`", ""),
        Case("default-run", "speed_command", "default_run", "default run, MTD-mini, EfficientNet-Lite0", "mini"),
        Case("refine", "speed_command", "refine_seconds", "`anomalib-ncd refine`, 5,000 regions, 500 corrections"),
        Case("many-stream", "deploy_many", "many_stream", "a stream of results", ""),
        Case("many-folder", "deploy_many", "many_folder", "into a folder of results", ""),
        *(
            Case(f"latency-{runtime}", "deploy_latency", f"latency_{runtime}", title, "plates")
            for runtime, title in (("eager", "PyTorch"), ("onnx", "ONNX Runtime"), ("openvino", "OpenVINO"))
        ),
    ]


def _corrections() -> list[Case]:
    """What corrections bring."""
    ways = {"mini": "cluster-tiles", "transistor": "cluster", "deeppcb": "cluster-normal", "plates": "cluster-normal"}
    return [
        case
        for data, way in ways.items()
        for case in _networks("", "corrections", "corrections", "", data, WAYS[way][1])
    ]


def _with_normal_column(case: Case) -> Case:
    """Say in the label whether there are normal images, where the label says nothing of the way."""
    if case.topic in {"number_of_classes", "unknown"}:
        return replace(case, label=f"{case.label} | {'yes' if case.normal else 'no'}")
    return case


CASES = {case.name: case for case in _all()}
