# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""New kinds of defect in new images, added to the classes of a run."""

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.models.checkpoints import save_model
from anomalib_ncd.models.clustering.new_classes import check_numbers, fit_new_prototypes, group_unknown
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.results.run_results import RunResults, free_keys, join_labels, select_images
from anomalib_ncd.runs import folder
from anomalib_ncd.runs.files import regions_folder_of, write_run_files
from anomalib_ncd.runs.naming import carry_names, check_names, copy_names
from anomalib_ncd.runs.refine import keep_corrections
from anomalib_ncd.visualization.report import map_regions

logger = logging.getLogger(__name__)


class Extension(NamedTuple):
    """What an extension found: unknown regions before, classes made of them, and regions that are unknown still."""

    num_unknown: int
    num_new_classes: int
    num_left: int


def extend_run(
    run: str | Path,
    datamodule: NcdDataModule,
    output: str | Path,
    num_new_classes: int | None = None,
    min_regions: int = 3,
    device: str | torch.device = "cpu",
    config: dict[str, Any] | None = None,
) -> Extension:
    """Classify new images with a run, discover classes among what is unknown, and leave a run of all images.

    The run's own classes keep slot, name and prototype; new ones are called ``class_<n>`` with the next numbers. The
    new folder holds what ``discover`` leaves.

    Args:
        run: Folder of a finished run; it stays as it is.
        datamodule: New images and their maps. Score range and settings of regions are taken from the run. Images that
            the run has already are taken once.
        output: Folder of the extended run.
        num_new_classes: Number of new classes; by default as many as the unknown regions fall into.
        min_regions: Fewest regions of a new class where the number is not given; smaller groups stay unknown.
        device: Where the encoder runs.
        config: Resolved flags to write as ``config.yaml``.

    Returns:
        What was found; no new class is a result, not an error.

    Raises:
        FileNotFoundError: If the run is not finished, or images, maps or crops are missing.
        ValueError: If both folders are one, the output holds another run, or the run is of an older version.
    """
    run, output = Path(run), Path(output)
    folder.refuse_same_folder(run, output)
    check_numbers(num_new_classes, min_regions)
    results = RunResults.load(run / folder.RESULTS_FILE)
    model = AnomalyNcd.load_from_checkpoint(run / folder.CHECKPOINT_FILE, map_location="cpu").eval().to(device)
    require_rejection(model)
    check_names(run, results.slot_names)
    datamodule.keep_in(output)
    datamodule.prepare_for(model.inputs)
    datamodule.setup()
    asked = {"num_new_classes": num_new_classes, "min_regions": min_regions}
    made_from = folder.MadeFrom.of(model, datamodule, "extend", **asked)
    made_from.inputs["run"] = hashlib.sha256((run / folder.RESULTS_FILE).read_bytes()).hexdigest()
    if folder.claim_folder(output, made_from, config) == "finished":
        logger.info("The run in %s is finished already; nothing to do.", output)
        return Extension(*folder.notes(output)["extension"])
    joined = _join(results, run, NcdBatch.collate(model.encode(datamodule)), datamodule, output)
    extension = extend_classes(model.cpu(), joined.batch, num_new_classes, min_regions)
    position = map_regions(np.asarray(joined.batch.region_feature))
    joined = replace(joined, slot_names=model.slots.default_names, region_position=position)
    keep_corrections(run, output, results, joined)
    copy_names(run, output)
    model.class_names = carry_names(output, joined)
    save_model(model, output / folder.CHECKPOINT_FILE)
    joined.save(output / folder.RESULTS_FILE)
    write_run_files(output, joined, model.class_names)
    folder.finish(output, model.class_names, extension=list(extension))
    _say_result(extension, model, output)
    return extension


def extend_classes(
    model: AnomalyNcd, images: NcdBatch, num_new_classes: int | None = None, min_regions: int = 3
) -> Extension:
    """Discover classes among unknown regions, add them to the model, and predict all images with it.

    Returns what was found. No unknown region, or none in a large enough group, leaves the model as it was. Slots, names
    and prototypes of the model's classes stay, new ones follow. ``images`` are those of the run and new ones, with
    features and references of their regions, and are predicted in place. Numbers as for :func:`extend_run`.
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


def _join(results: RunResults, run: Path, new: NcdBatch, datamodule: NcdDataModule, output: Path) -> RunResults:
    """Images of the run and new ones as one run, whose crops lie in the new folder."""
    table, records = datamodule.region_table(), results.images
    again = {os.path.realpath(path) for path in new.image_path}
    kept = [i for i, path in enumerate(results.batch.image_path) if os.path.realpath(path) not in again]
    new_keys = [image.key for image in table.images]
    old_keys = free_keys([records[index].key for index in kept], new_keys)
    source = RegionTable.read([records[index] for index in kept], run / results.regions_folder)
    table.adopt(source, source.images, old_keys)
    kept_results = replace(results, batch=select_images(results.batch, kept))
    batch, label_names = join_labels(kept_results, new, datamodule.class_names)
    return replace(
        results,
        batch=batch,
        image_keys=[*old_keys, *new_keys],
        label_names=label_names,
        found_defects={},  # those of new images are not known
        regions_folder=regions_folder_of(table, output),
    )


def _say_result(extension: Extension, model: AnomalyNcd, output: Path) -> None:
    if not extension.num_unknown:
        logger.info("Every region is like one of the run; its classes stay as they were.")
    else:
        added = model.class_names[len(model.class_names) - extension.num_new_classes :]
        logger.info(
            "%d regions were unknown. New classes: %s. %d regions are unknown still.",
            extension.num_unknown,
            ", ".join(added) or "none",
            extension.num_left,
        )
    logger.info("Results are in %s; the run before stays as it is.", output)


def _parts(images: NcdBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, references, what is unknown, and classes of the regions."""
    parts = (images.region_feature, images.region_reference, images.region_unknown, images.region_pred_class_id)
    if any(part is None for part in parts):
        msg = "The images lack features or references of their regions; run `anomalib-ncd discover` again."
        raise ValueError(msg)
    return parts  # type: ignore[return-value]
