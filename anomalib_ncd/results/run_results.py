# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Everything that a run predicted, in one file: tables, pictures and the report can be made from it again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.labels import UNLABELLED
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.reading.listing import ImageFile
from anomalib_ncd.regions.writing import whole_file

PIXEL_FIELDS = {"image", "region_mask"}
HALF_FIELDS = {"region_feature", "region_reference", "region_appearance"}


@dataclass(frozen=True)
class RunResults:
    """Predictions of a run with what is needed to show them."""

    batch: NcdBatch  # predictions of all images, without pixels, on the CPU
    image_keys: list[str]  # key of each image, see ImageFile
    slot_names: list[str]  # names that discovery gave to the K slots: normal where there is such a slot, class_1 …
    regions_folder: str  # folder of the crops, relative to the run's folder where it lies inside
    region_position: np.ndarray  # (R, 2) float32, the map of all regions in two dimensions
    label_names: list[str]  # names of the true classes that batch.class_id counts; empty without labels
    normal_slot: int | None = None  # slot that gathers false alarms; None where there is none
    merging_temperature: float | None = None  # T of region merging; None for an eighth of the root of an image's area
    normal_label: str = "good"  # true class of good images
    # Where the number of classes was estimated, its count, low, high, curve and method, see NumClassesEstimate
    num_classes_estimate: dict[str, Any] | None = None
    bit_depth: int = 16  # bits that are used in 16-bit images
    # What was known without labels when the classes were discovered, see FACTS
    facts: dict[str, float] = field(default_factory=dict)
    # Where defects are labelled, what was found of them, see count_found
    found_defects: dict[str, int] = field(default_factory=dict)

    def merging(self, class_names: Sequence[str]) -> RegionMerging:
        """What the classes mean under these names, and how regions decide about their image."""
        return RegionMerging(tuple(class_names), self.normal_slot, self.merging_temperature)

    def image_results(self, class_names: Sequence[str]) -> list[ImageResult]:
        """Results of all images under these names, in the order of the batch."""
        return self.batch.image_results(self.merging(class_names))

    @property
    def images(self) -> list[ImageFile]:
        """The images, in the order of the batch."""
        return [ImageFile(Path(p), key) for p, key in zip(self.batch.image_path, self.image_keys, strict=True)]

    def showing(self, images: Sequence[ImageResult]) -> RunResults:
        """The same results with classes as :meth:`image_results` under other names of the slots says."""
        return replace(self, batch=replace(self.batch).with_results(images))

    def save(self, file: str | Path) -> None:
        """Write the results; a reader never sees a half-written file. Features are kept in half precision."""
        arrays = {"region_position": np.asarray(self.region_position, np.float32)}
        for name in (entry.name for entry in fields(NcdBatch)):
            value = getattr(self.batch, name)
            if isinstance(value, torch.Tensor) and name not in PIXEL_FIELDS:
                value = value.float() if value.is_floating_point() else value
                arrays[name] = value.half().numpy() if name in HALF_FIELDS else value.numpy()
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in NOT_PLAIN}
        plain["image_path"] = self.batch.image_path
        with whole_file(file) as unfinished:
            np.savez_compressed(unfinished, plain=np.array(json.dumps(plain)), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: str | Path) -> RunResults:
        """Read what :meth:`save` wrote.

        ``FileNotFoundError`` if there is no such file; ``ValueError`` if another version wrote it, or a key leads out
        of the folder that crops are written to.
        """
        file = Path(file)
        if not file.is_file():
            msg = f"There is no {file}; name the folder of a finished run of `anomalib-ncd discover`."
            raise FileNotFoundError(msg)
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        plain = json.loads(str(arrays.pop("plain")))
        wanted = {entry.name for entry in fields(cls)} - NOT_PLAIN | {"image_path"}
        if set(plain) != wanted:
            msg = f"{file} was written by another version of anomalib_ncd; run `anomalib-ncd discover` again."
            raise ValueError(msg)
        outside = [key for key in plain["image_keys"] if _OUTSIDE.search(key)]
        if outside:
            msg = f"{file} holds an image key that leads elsewhere, {outside[0]!r}; `discover` writes none such."
            raise ValueError(msg)
        position = arrays.pop("region_position")
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        tensors |= {name: tensors[name].float() for name in HALF_FIELDS & tensors.keys()}
        batch = NcdBatch(plain.pop("image_path"), image=None, region_mask=None, **tensors)
        return cls(batch=batch, region_position=position, **plain)


def regions_of_images(results: RunResults) -> dict[str, list[tuple[list[float], str]]]:
    """Box and slot of each region, by the key of its image."""
    batch = results.batch
    if batch.region_class_probabilities is None:
        msg = "The batch holds no predictions; pass what Engine.predict returns."
        raise ValueError(msg)
    regions: dict[str, list[tuple[list[float], str]]] = {}
    slots = batch.region_class_probabilities.argmax(dim=1).tolist()
    for image, box, slot in zip(batch.region_image_index.tolist(), batch.region_box_xyxy.tolist(), slots, strict=True):
        regions.setdefault(results.image_keys[image], []).append((box, results.slot_names[slot]))
    return regions


def digest_of_classes(results: RunResults) -> str:
    """Digest of the slot of each region, whatever the slots are called by the user."""
    return hashlib.sha256(repr(regions_of_images(results)).encode(errors="surrogateescape")).hexdigest()


NOT_PLAIN = {"batch", "region_position"}
_OUTSIDE = re.compile(r"^([A-Za-z]:)?[/\\]|(^|[/\\])\.\.([/\\]|$)")  # absolute, or above the folder


def select_images(batch: NcdBatch, indices: Sequence[int]) -> NcdBatch:
    """Some images of a batch without pixels, with their regions, in the given order; each at most once."""
    place = torch.full((len(batch),), -1)
    place[list(indices)] = torch.arange(len(indices))
    of_region = place[batch.region_image_index]
    regions = of_region.argsort(stable=True)[int((of_region < 0).sum()) :]
    chosen: dict[str, torch.Tensor | None] = {}
    for column in fields(NcdBatch):
        value = getattr(batch, column.name)
        if isinstance(value, torch.Tensor):
            chosen[column.name] = value[regions if column.name.startswith("region_") else list(indices)]
    chosen["region_image_index"] = of_region[regions]
    return replace(batch, image_path=[batch.image_path[index] for index in indices], **chosen)  # type: ignore[arg-type]


def join_labels(results: RunResults, batch: NcdBatch, label_names: Sequence[str]) -> tuple[NcdBatch, list[str]]:
    """Join the images of a run and new ones, numbered as the run's in place; and name all true classes."""
    names = [*results.label_names, *(name for name in label_names if name not in results.label_names)]
    if not names:
        return NcdBatch.collate([results.batch, batch]), names
    # The last one is where -1 leads.
    number = torch.tensor([names.index(name) for name in label_names] + [UNLABELLED])
    old, new = replace(results.batch), batch
    for one, has_labels in ((old, bool(results.label_names)), (new, bool(label_names))):
        if not has_labels or one.class_id is None or one.region_class_id is None:
            one.class_id = torch.full((len(one),), UNLABELLED)
            one.region_class_id = torch.full((len(one.region_area),), UNLABELLED)
        elif one is new:
            one.class_id, one.region_class_id = number[one.class_id], number[one.region_class_id]
    return NcdBatch.collate([old, new]), names


def free_keys(keys: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Rename keys of images that are taken."""
    used, free = {*taken, *keys}, []
    for key in keys:
        number, name = 2, key
        while name in taken or (name != key and name in used):
            name, number = f"{key}~{number}", number + 1
        used.add(name)
        free.append(name)
    return free
