# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What is measured of discovered classes: scores, numbers of classes, held-out images, unknown kinds."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.engine import Engine
from cases import PAPERS, Case, Setup
from data_sets import datamodule_arguments, num_classes
from lightning.pytorch import seed_everything
from sklearn.metrics import roc_auc_score

from anomalib_ncd import AnomalyNcd, NcdDataModule, discover
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.metrics.discovery import clustering_report, match_classes
from anomalib_ncd.models.encoded_regions import given, rows_of
from anomalib_ncd.models.rejection import RegionRejection
from anomalib_ncd.regions.settings import PAPER_REGIONS
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.settings import RunOptions

SCORES = ("nmi", "ari", "accuracy", "macro_f1")
NUM_SPLITS = 5


def model_arguments(case: Case, weights: Path | None) -> dict[str, Any]:
    """Arguments of :class:`anomalib_ncd.AnomalyNcd` for a case."""
    files = ["" if name == "offline" else str(weights or "") for name in case.backbone.split("+")]
    return {
        "backbone": case.backbone,
        "backbone_weights": "+".join(files) if any(files) else None,
        "num_novel_classes": case.num_novel_classes or num_classes(case),
        "training": case.training,
    }


def run(case: Case, setup: Setup, folder: Path, **data: Any) -> tuple[AnomalyNcd, NcdDataModule, dict[str, Any]]:
    """Discover classes; model, data and what ``metrics.json`` says."""
    seed_everything(setup.seed, workers=True, verbose=False)
    regions = PAPER_REGIONS if case.training is PAPERS else None
    arguments = {"regions": regions} | datamodule_arguments(case, setup.data, setup.work) | data
    datamodule = NcdDataModule(**arguments, seed=setup.seed)
    model = AnomalyNcd(**model_arguments(case, setup.weights))
    options = RunOptions(max_epochs=setup.max_epochs, accelerator="cpu")
    return model, datamodule, discover(model, datamodule, folder, case.method, options)


def discovery(case: Case, setup: Setup) -> dict[str, float]:
    """Scores of the images, and how well *normal* gathers false alarms; of DeepPCB, scores of regions."""
    if case.data == "deeppcb":
        batch, truth = regions_on_boxes(case, setup)
        classes = given(batch.region_pred_class_id, "no predictions").numpy()
        return clustering_report(classes[truth >= 0], truth[truth >= 0])
    metrics = run(case, setup, setup.work / "run")[2]
    scores = {name: float(metrics["image"][name]) for name in SCORES}
    normal = metrics["image"].get("normal", {})
    shares = {f"normal_{name}": normal.get(name) for name in ("recall", "precision", "defects_lost")}
    return scores | {name: float(value) for name, value in shares.items() if value is not None}


def regions_on_boxes(case: Case, setup: Setup) -> tuple[NcdBatch, np.ndarray]:
    """Clusters of DeepPCB's regions; the class of the labelled box that each lies on, -1 for none."""
    arguments = datamodule_arguments(case, setup.data, setup.work)
    model = AnomalyNcd(**model_arguments(case, setup.weights))
    datamodule = NcdDataModule(**arguments, work_dir=setup.work / "run", seed=setup.seed)
    datamodule.setup()
    batch = NcdBatch.collate(discover_by_clustering(model, datamodule, seed=setup.seed))
    return batch, truth_of_boxes(batch, Path(arguments["images"]).parent / "regions.csv")


def number_of_classes(case: Case, setup: Setup) -> dict[str, float]:
    """The estimated number of classes, its range, and the NMI of the images."""
    metrics = run(case, setup, setup.work / "run")[2]
    estimate = json.loads((setup.work / "run" / "number_of_classes.json").read_text(encoding="utf-8"))
    found = {name: float(estimate[name]) for name in ("count", "low", "high")}
    return {"true": float(num_classes(case)), **found, "nmi": float(metrics["image"]["nmi"])}


def held_out(case: Case, setup: Setup) -> dict[str, float]:
    """Scores of images that a run has never seen: each half is discovered, the other is classified.

    *Names* match classes to labels on the half that was discovered, as a user does who names them.
    """
    arguments = datamodule_arguments(case, setup.data, setup.work)
    lists = []
    for number, paths in enumerate(_halves(Path(arguments["images"]))):
        lists.append(setup.work / f"half{number}.txt")
        lists[-1].write_text("\n".join(paths) + "\n", encoding="utf-8")
    found = defaultdict(list)
    for half in range(2):
        folder = setup.work / f"run{half}"
        model, _, metrics = run(case, setup, folder, image_list=lists[half])
        new = NcdDataModule(**arguments | {"image_list": lists[1 - half], "base": None, "normal_images": None})
        engine = Engine(accelerator="cpu", devices=1, default_root_dir=setup.work / "engine", logger=False)
        batches: Any = engine.predict(model, datamodule=new) or []
        predicted = NcdBatch.collate(list(batches))
        classes, labels = _classes_and_labels(predicted)
        names = match_classes(*_classes_and_labels(RunResults.load(folder / "results.npz").batch))
        right = [names.get(int(slot), -1) == label for slot, label in zip(classes, labels, strict=True)]
        scores = {f"{name}_run": float(metrics["image"][name]) for name in SCORES}
        scores |= clustering_report(classes, labels) | {"names": float(np.mean(right))}
        unknown = predicted.region_unknown
        scores |= {} if unknown is None else {"unknown": float(unknown.float().mean())}
        for name, value in scores.items():
            found[name].append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def unknown(case: Case, setup: Setup) -> dict[str, float]:
    """How well regions of new kinds are told from known ones, each kind left out in turn.

    Images of the other kinds are split in halves, one of which is known. AUROC is that of the left-out kind's regions
    against those of the other half; rates are shares of either that are called unknown at 2 %.
    """
    references, image, labels, kinds = _references_and_kinds(case, setup)
    found = defaultdict(list)
    for kind in kinds:
        for in_run in _splits(labels.numpy(), image.numpy(), kind):
            is_new = labels == kind
            known, other = ~is_new & in_run, ~is_new & ~in_run
            rejection = RegionRejection()
            rejection.fit(references[known], image[known])
            similarity = torch.cat([rejection(references[other]), rejection(references[is_new])])
            target = np.repeat([0, 1], [int(other.sum()), int(is_new.sum())])
            found["auroc"].append(float(roc_auc_score(target, -similarity.numpy())))
            found["known_unknown"].append(float(rejection.is_unknown(references[other]).float().mean()))
            found["new_unknown"].append(float(rejection.is_unknown(references[is_new]).float().mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _references_and_kinds(case: Case, setup: Setup) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    """References, images and labels of regions, and the labels that are kinds of defect."""
    if case.data == "deeppcb":
        batch, truth = regions_on_boxes(case, setup)
        references, labels = given(batch.region_reference, "no references"), torch.from_numpy(truth)
        on_box = labels >= 0
        return references[on_box], batch.region_image_index[on_box], labels[on_box], labels[on_box].unique().tolist()
    model, datamodule, _ = run(case, setup, setup.work / "run")
    encoded = model.encode(datamodule)
    _, _, references, image = rows_of(encoded)
    labels = given(NcdBatch.collate(encoded).region_class_id, "The images hold no labels")
    return references, image, labels, [number for number, name in enumerate(datamodule.class_names) if name != "good"]


def _splits(labels: np.ndarray, image: np.ndarray, kind: int) -> Iterator[torch.Tensor]:
    """Which regions lie in a random half of the images, stratified by class; several times."""
    for split in range(NUM_SPLITS):
        rng = np.random.default_rng([kind, split])
        chosen: list[int] = []
        for label in np.unique(labels):
            images = rng.permutation(np.unique(image[labels == label]))
            chosen += images[: len(images) // 2].tolist()
        yield torch.from_numpy(np.isin(image, chosen))


def _halves(images: Path) -> list[list[str]]:
    """Relative paths of two halves, each with half of every class, by the digest of the name."""
    halves: list[list[str]] = [[], []]
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        names = [path.relative_to(images).as_posix() for path in folder.iterdir()]
        ordered = sorted(names, key=lambda name: hashlib.sha256(f"0 {name}".encode()).digest())
        for number, name in enumerate(ordered):
            halves[number % 2].append(name)
    return [sorted(half) for half in halves]


def _classes_and_labels(images: NcdBatch) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes of images."""
    predicted = given(images.pred_class_id, "The images hold no classes")
    return predicted.numpy(), given(images.class_id, "The images hold no labels").numpy()


def truth_of_boxes(batch: NcdBatch, file: Path) -> np.ndarray:
    """Class of the labelled box whose middle lies in a region, the nearest one; -1 where there is none."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = sorted({row["class"] for row in rows})
    boxes: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for row in rows:
        left, top, right, bottom = (int(row[edge]) for edge in ("left", "top", "right", "bottom"))
        boxes[row["image"]].append(((left + right) / 2, (top + bottom) / 2, names.index(row["class"])))
    truth = []
    for image, (left, top, right, bottom) in zip(
        batch.region_image_index.tolist(), batch.region_box_xyxy.tolist(), strict=True
    ):
        middle = (left + right) / 2, (top + bottom) / 2
        inside = [
            one
            for one in boxes[Path(batch.image_path[image]).name]
            if left <= one[0] < right and top <= one[1] < bottom
        ]
        nearest = min(inside, key=lambda one: abs(one[0] - middle[0]) + abs(one[1] - middle[1]), default=(0, 0, -1))
        truth.append(nearest[2])
    return np.array(truth)
