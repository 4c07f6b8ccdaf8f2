# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The images of a run and new ones as one run: predictions, labels and crops side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.labels import UNLABELLED
from anomalib_ncd.results.run_results import RunResults


def select_images(batch: NcdBatch, indices: Sequence[int]) -> NcdBatch:
    """Some images of a batch without pixels, with their regions, in the given order; each at most once."""
    place = torch.full((len(batch),), -1)
    place[list(indices)] = torch.arange(len(indices))
    of_region = place[batch.region_image_index]
    regions = of_region.argsort(stable=True)[int((of_region < 0).sum()) :]
    chosen: dict[str, torch.Tensor | None] = {}
    for field in fields(NcdBatch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            chosen[field.name] = value[regions if field.name.startswith("region_") else list(indices)]
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
    """Rename keys of images that are taken.

    Example:
        >>> free_keys(["dent/000", "dent/001"], taken=["dent/000"])
        ['dent/000~2', 'dent/001']
    """
    used, free = {*taken, *keys}, []
    for key in keys:
        number, name = 2, key
        while name in taken or (name != key and name in used):
            name, number = f"{key}~{number}", number + 1
        used.add(name)
        free.append(name)
    return free
