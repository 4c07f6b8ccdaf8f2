# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen features of regions whose true classes are known, and the cases cut out of them.

Features are computed once per data set and backbone and kept in a folder; a case is a choice of their classes and of
how many regions of each.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.normal_regions import MAX_NORMAL_REGIONS
from anomalib_ncd.data.transforms import EvalView
from anomalib_ncd.models.describer import DescriberKind, NormalResiduals, stretched_residuals
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset, paint_defect, simulate_anomaly_map

IMBALANCE = 10
PER_KIND = 36


@dataclass(frozen=True)
class Pool:
    """Regions of a data set.

    Attributes:
        features: ``(R, D)`` float32, frozen and mask-guided, as they are clustered.
        labels: ``(R,)`` integer, true class of the region's image.
        class_names: What the labels count.
        base_features: ``(B, D)`` float32, of labelled base regions; may be empty.
        base_labels: ``(B,)`` integer.
    """

    features: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    base_features: np.ndarray
    base_labels: np.ndarray


@dataclass(frozen=True)
class Case:
    """Regions of some classes, to be counted.

    Attributes:
        name: What it was cut from, and how.
        features: ``(R, D)`` float32.
        labels: ``(R,)`` integer, true classes.
        base_features: ``(B, D)`` float32, labelled regions of other classes.
        base_labels: ``(B,)`` integer.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    base_features: np.ndarray
    base_labels: np.ndarray

    @property
    def true_count(self) -> int:
        """Number of classes."""
        return len(np.unique(self.labels))


def generated_pool(folder: Path, seed: int, backbone: str, weights: Path | None) -> Pool:
    """Regions of good images and of all twelve kinds of defect, with simulated maps."""
    file = folder / f"generated_{seed}_{backbone}.npz"
    if not file.is_file():
        data = generate_dataset(
            folder / f"images_{seed}",
            kinds=DEFECT_KINDS,
            num_train_good=0,
            num_test_good=PER_KIND,
            num_per_kind=PER_KIND,
            num_mixed=0,
            seed=seed,
            anomaly_maps=True,
        )
        datamodule = NcdDataModule(data.test_dir, str(data.anomaly_maps_dir), labels=data.labels_csv)
        compute_features(file, datamodule, backbone, weights)
    return read_pool(file)


def painted_pool(
    folder: Path, data: Path, seed: int, backbone: str, weights: Path | None, *, normal: bool = False
) -> Pool:
    """Regions of real good tiles with defects painted on them, fainter and of other sizes than on generated plates.

    With `normal` they are compared with good tiles that aren't among the images.
    """
    file = folder / f"painted_{seed}_{backbone}{'_normal' if normal else ''}.npz"
    if not file.is_file():
        root = folder / f"painted_images_{seed}"
        if not (root / "done").is_file():
            paint_tiles(root, sorted((data / "mtd" / "train" / "good").glob("*.jpg")), seed)
        normal_images = root / "normal" if normal else None
        datamodule = NcdDataModule(root / "images", root / "maps", labels="folders", normal_images=normal_images)
        compute_features(file, datamodule, backbone, weights)
    return read_pool(file)


def paint_tiles(root: Path, tiles: Sequence[Path], seed: int) -> None:
    """Write one tile per image and class, a simulated map for each, and good tiles that are no images."""
    order = iter(np.random.default_rng(seed).permutation(len(tiles)))
    for kind in ("good", *DEFECT_KINDS):
        (root / "images" / kind).mkdir(parents=True, exist_ok=True)
        (root / "maps" / kind).mkdir(parents=True, exist_ok=True)
        for index in range(PER_KIND):
            tile = read_image(tiles[next(order)])
            rng = np.random.default_rng([seed, DEFECT_KINDS.index(kind) + 1 if kind != "good" else 0, index])
            mask = np.zeros(tile.shape[:2], bool)
            if kind != "good":
                scale, contrast = rng.uniform(0.6, 1.6), rng.uniform(0.3, 1.0)
                tile, mask = paint_defect(tile, kind, rng, scale=scale, contrast=contrast)
                tile = np.repeat(tile.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
            cv2.imwrite(str(root / "images" / kind / f"{index:03d}.png"), tile)
            np.save(root / "maps" / kind / f"{index:03d}.npy", simulate_anomaly_map(mask, rng))
    (root / "normal").mkdir(exist_ok=True)
    for index in order:
        shutil.copy(tiles[index], root / "normal" / tiles[index].name)
    (root / "done").touch()


def mtd_pool(folder: Path, data: Path, backbone: str, weights: Path | None, *, normal: bool = False) -> Pool:
    """Regions of all test images of Magnetic Tile Defect, with steel defects as base classes.

    With `normal` they are compared with its good training tiles, and there are no base classes.
    """
    file = folder / f"mtd_{backbone}{'_normal' if normal else ''}.npz"
    if not file.is_file():
        datamodule = NcdDataModule(
            data / "mtd" / "test",
            data / "mtd_anomaly_maps",
            base=None if normal else data / "steel_base",
            base_list=None if normal else data / "steel_base_mini.txt",
            normal_images=data / "mtd" / "train" / "good" if normal else None,
            labels="folders",
        )
        compute_features(file, datamodule, backbone, weights)
    return read_pool(file)


def read_pool(file: Path) -> Pool:
    """Read what :func:`compute_features` wrote."""
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return Pool(class_names=arrays.pop("class_names").tolist(), **arrays)


@torch.inference_mode()
def compute_features(file: Path, datamodule: NcdDataModule, backbone: str, weights: Path | None) -> None:
    """Write features and labels of all regions of a datamodule, and of its base regions."""
    torch.manual_seed(0)
    kind: DescriberKind = "frozen_features" if datamodule.normal_images is None else "normal_residuals"
    model = AnomalyNcd(backbone, weights, num_novel_classes=2, describer=kind).eval()
    datamodule.prepare_for(model.inputs)
    describer, normal = model.model.describer, datamodule.normal_regions(MAX_NORMAL_REGIONS)
    if isinstance(describer, NormalResiduals) and normal is not None:
        describer.fit(normal, [record.path for record in datamodule.normal_records])
    batches = [
        (model.model.describe(batch).feature, batch.region_score, batch.region_class_id)
        for batch in tqdm(datamodule.test_dataloader(), desc=file.stem)
    ]
    features, scores, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    if isinstance(describer, NormalResiduals):
        features = stretched_residuals(features, scores)
    trained_on, view = datamodule.train_regions(), EvalView(datamodule.image_size)
    base = np.zeros((0, features.shape[1]), np.float32)
    num_base = trained_on.num_base
    for start in tqdm(range(0, num_base, 32), desc=f"{file.stem}, base"):
        views = [view(*trained_on.load(index)) for index in range(start, min(start + 32, num_base))]
        images, masks = (torch.stack(part) for part in zip(*views, strict=True))
        described = describer(images, masks, images, torch.arange(len(images)))  # they are whole images
        base = np.concatenate([base, described.feature.numpy()])
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        features=features.numpy(),
        labels=labels.numpy(),
        class_names=np.array(datamodule.class_names),
        base_features=base,
        base_labels=trained_on.labels[:num_base].numpy(),
    )
