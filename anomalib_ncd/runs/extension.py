# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""New classes for a model that has classes already; the old ones stay what and where they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.clustering.new_classes import fit_new_prototypes, group_unknown
from anomalib_ncd.models.lightning_model import AnomalyNcd


class Extension(NamedTuple):
    """What an extension found: unknown regions before, classes made of them, and regions that are unknown still."""

    num_unknown: int
    num_new_classes: int
    num_left: int


def extend_classes(
    model: AnomalyNcd,
    images: NcdBatch,
    num_new_classes: int | None = None,
    min_regions: int = 3,
) -> Extension:
    """Discover classes among unknown regions, add them to the model, and predict all images with it.

    Args:
        model: Model of a run, changed in place: slots, names and prototypes of its classes stay, new ones follow.
        images: All images, those of the run and new ones, with features and references of their regions; predicted in
            place.
        num_new_classes: Number of new classes; by default found by
            :func:`~anomalib_ncd.models.clustering.new_classes.group_unknown`.
        min_regions: Fewest regions of a new class where the number is not given.

    Returns:
        What was found. No unknown region, or none in a large enough group, leaves the model as it was.

    Raises:
        ValueError: If the model knows no regions, or the images have no features.
    """
    require_rejection(model)
    model.model.classify_encoded(images)
    features, references, unknown, classes = _parts(images)
    directions = model.model.rejection.directions(references.to(model.device)).cpu()
    groups = torch.from_numpy(
        group_unknown(directions[unknown], directions[~unknown], classes[~unknown], num_new_classes, min_regions)
    )
    num_new = int(groups.max()) + 1 if len(groups) else 0
    if num_new:
        members = unknown.nonzero().flatten()[groups >= 0]
        first = model.slots.num_base
        new_slots = first + model.slots.num_classes + groups[groups >= 0]
        prototypes = fit_new_prototypes(
            model.model.heads.weight.cpu(),
            torch.cat([features[~unknown], features[members]]),
            torch.cat([first + classes[~unknown], new_slots]),
            num_new,
            model.model.describer.logit_temperature,
        )
        model.model.add_classes(prototypes)
        model.hparams["num_novel_classes"] = model.slots.num_novel
        model.model.rejection.extend(references[members], images.region_image_index[members])
        model.model.classify_encoded(images)
    return Extension(int(unknown.sum()), num_new, int(_parts(images)[2].sum()))


def require_rejection(model: AnomalyNcd) -> None:
    """Raise ``ValueError`` for a model that nothing can be unknown to."""
    if model.model.rejection.threshold is None:
        msg = (
            "The model doesn't know the regions that it was made from, or was made with `false_reject_rate=None`; "
            "run `anomalib-ncd discover` again."
        )
        raise ValueError(msg)


def _parts(images: NcdBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, references, what is unknown, and classes of the regions."""
    parts = (images.region_feature, images.region_reference, images.region_unknown, images.region_pred_class_id)
    if any(part is None for part in parts):
        msg = "The images lack features or references of their regions; run `anomalib-ncd discover` again."
        raise ValueError(msg)
    return parts  # type: ignore[return-value]
