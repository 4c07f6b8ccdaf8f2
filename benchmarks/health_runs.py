# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Many cheap discovery runs, good and bad, whose health figures can be compared with their scores.

Good and bad come from the backbone (trained or random weights), the maps (right ones, or those of other images), the
number of classes (half to twice the truth), the method (Ward, k-means, random prototypes) and training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from anomalib.engine import Engine
from lightning.pytorch import seed_everything
from torch.nn import functional as F

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.clustering.clustering import cluster_centres, cluster_features
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

GENERATED_SETS = {"A": 3, "B": 4, "C": 5, "D": 6, "E": 8, "F": 10}  # kinds of defect
MTD_CLASSES = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven")


@dataclass(frozen=True)
class DataSet:
    """Images with maps and labels, and how many classes there are with *good* as one."""

    name: str
    images: Path
    anomaly_maps: Path
    labels: str | Path
    num_classes: int
    image_list: Path | None = None
    base: Path | None = None
    base_list: Path | None = None

    def datamodule(self, **arguments: object) -> NcdDataModule:
        """Regions of the images."""
        return NcdDataModule(
            self.images,
            self.anomaly_maps,
            labels=self.labels,
            image_list=self.image_list,
            base=self.base,
            base_list=self.base_list,
            **arguments,  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Run:
    """Predictions of a run."""

    data: str
    name: str
    method: str
    batch: NcdBatch
    normal_slot: int | None = None


def generated_sets(folder: Path) -> Iterator[DataSet]:
    """Six generated data sets of 3 to 10 kinds of defect, some with few images of a kind, and 10 to 30 good images."""
    for seed, (name, count) in enumerate(GENERATED_SETS.items()):
        kinds = np.random.default_rng(seed).permutation(DEFECT_KINDS)
        data = generate_dataset(
            folder / name,
            kinds=kinds[:count].tolist(),
            num_train_good=0,
            num_test_good=10 + 4 * seed,
            num_per_kind=max(8, 72 // count),
            num_mixed=0,
            seed=100 + seed,
            anomaly_maps=True,
            base_kinds=kinds[-2:].tolist(),
            num_per_base_kind=15,
        )
        maps = data.anomaly_maps_dir
        if maps is not None:
            yield DataSet(name, data.test_dir, maps, data.labels_csv, count + 1, base=data.root / "base")


def mtd_sets(data: Path, folder: Path) -> Iterator[DataSet]:
    """MTD-mini, and its images of good and two or three classes."""
    mini = (data / "mtd_mini.txt").read_text().split()
    chosen = {"mini": MTD_CLASSES, "mini-2": MTD_CLASSES[1:3], "mini-3": (*MTD_CLASSES[:1], *MTD_CLASSES[3:])}
    folder.mkdir(parents=True, exist_ok=True)
    for name, classes in chosen.items():
        listed = folder / f"{name}.txt"
        listed.write_text("\n".join(line for line in mini if line.split("/")[0] in {"good", *classes}) + "\n")
        yield DataSet(
            name,
            data / "mtd" / "test",
            data / "mtd_anomaly_maps",
            "folders",
            len(classes) + 1,
            image_list=listed,
            base=data / "steel_base",
            base_list=data / "steel_base_mini.txt",
        )


def with_maps_of_others(data: DataSet, folder: Path) -> DataSet:
    """The same images with the anomaly maps of other images: what a detector that fails is like."""
    files = sorted(data.anomaly_maps.rglob("*.*"))
    others = np.random.default_rng(0).permutation(len(files))
    for file, other in zip(files, others, strict=True):
        target = folder / file.relative_to(data.anomaly_maps)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(files[other].absolute())
    return replace(data, anomaly_maps=folder)


def describe(model: AnomalyNcd, datamodule: NcdDataModule) -> NcdBatch:
    """All images with the features of their regions, without predictions."""
    batches = []
    model.eval()
    for batch in datamodule.test_dataloader():
        with torch.no_grad():
            feature, reference = model.model.describe(batch)
        batches.append(batch.without_pixels().update(region_feature=feature.float(), region_reference=reference))
    return NcdBatch.collate(batches)


def cluster_runs(data: DataSet, name: str, batch: NcdBatch) -> Iterator[Run]:
    """Clusterings of the same regions by two methods, with half to twice the right number of classes."""
    counts = sorted({max(2, data.num_classes // 2), data.num_classes, data.num_classes + 2, 2 * data.num_classes})
    rows = F.normalize(batch.region_feature, dim=1)  # type: ignore[arg-type]
    for count in counts:
        for method in ("ward", "kmeans"):
            labels = cluster_features(rows, count, method)  # type: ignore[arg-type]
            centres = cluster_centres(rows, torch.as_tensor(labels), count)
            yield Run(data.name, f"{name} {method} {count}", method, classified(batch, rows @ centres.T))
    prototypes = F.normalize(torch.randn(data.num_classes, rows.shape[1], generator=torch.manual_seed(0)), dim=1)
    yield Run(data.name, f"{name} random prototypes", "random", classified(batch, rows @ prototypes.T))


def classified(batch: NcdBatch, cosines: torch.Tensor) -> NcdBatch:
    """A batch with classes by cosine similarity ``(R, K)`` to prototypes."""
    names = tuple(f"class_{slot + 1}" for slot in range(cosines.shape[1]))
    return replace(batch).with_predictions((cosines / 0.1).softmax(dim=1), RegionMerging(names))


def train_run(data: DataSet, backbone: dict[str, str], epochs: int, folder: Path, num_classes: int) -> Run:
    """AnomalyNCD with four cached views."""
    seed_everything(0, workers=True)
    model = AnomalyNcd(num_novel_classes=num_classes, training=TrainingSettings(num_cached_views=4), **backbone)  # type: ignore[arg-type]
    datamodule = data.datamodule()
    engine = Engine(max_epochs=epochs, accelerator="cpu", devices=1, precision="bf16-mixed", default_root_dir=folder)
    engine.fit(model, datamodule=datamodule)
    batches = engine.predict(model, datamodule=datamodule, return_predictions=True)
    name = f"{backbone['backbone']} trained {epochs} epochs {num_classes}"
    return Run(data.name, name, "trained", NcdBatch.collate(batches), normal_slot=0)  # type: ignore[arg-type]
