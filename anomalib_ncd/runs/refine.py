# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A run whose classes follow what its user says of regions: seconds, without images and without the encoder."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_ncd.models.checkpoints import save_model
from anomalib_ncd.models.clustering.refinement import constrained, probabilities_of, refine_prototypes
from anomalib_ncd.models.encoded_regions import given
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.regions.writing import whole_file
from anomalib_ncd.results.class_names import FILE_NAME as NAMES_FILE
from anomalib_ncd.results.class_names import naming_of, resolve_class_names
from anomalib_ncd.results.corrections import (
    FILE_NAME,
    Correction,
    Corrections,
    read_corrections,
    rows_of_results,
    slots_said,
)
from anomalib_ncd.results.run_results import RunResults, digest_of_classes
from anomalib_ncd.runs import folder
from anomalib_ncd.runs.files import write_run_files
from anomalib_ncd.runs.refinement import ClassPlan, follow

PRIOR_FILE = "prior.npz"
LOST_PRIOR = 0.1  # of a region whose classes have all but gone, the prior is forgotten

logger = logging.getLogger(__name__)


def refine_run(run: str | Path, corrections: str | Path, output: str | Path) -> dict[str, Any]:
    """Let the classes of a run follow corrections of its regions, and leave a run like any other.

    Classes keep names and numbers; new ones get the next numbers, and those that nothing is of any more go. Corrections
    of the finished run's own folder, which stays as it is, count as well, where the file says nothing else; all are
    kept in the new folder. The file is as the report saves it, or ``corrections.json`` of another run of the same
    images, whose classes are then told by their names, else by the corrected regions. Returns what ``metrics.json``
    says. ``FileNotFoundError`` if the run is not finished, or there is no such file; ``ValueError`` if the file is
    wrong, both folders are one, or the output holds another run.
    """
    run, output = Path(run), Path(output)
    folder.refuse_same_folder(run, output)
    results = RunResults.load(run / folder.RESULTS_FILE)
    said = read_corrections(corrections)
    earlier = read_corrections(run / FILE_NAME) if (run / FILE_NAME).is_file() else Corrections()
    names = json.loads((run / NAMES_FILE).read_text(encoding="utf-8-sig")) if (run / NAMES_FILE).is_file() else {}
    made_from = folder.MadeFrom(
        {"method": "refine"},
        {
            "run": hashlib.sha256((run / folder.RESULTS_FILE).read_bytes()).hexdigest(),
            "corrections": hashlib.sha256(repr((said, earlier, names)).encode(errors="surrogateescape")).hexdigest(),
        },
    )
    if folder.claim_folder(output, made_from) == "finished":
        logger.info("The run in %s is finished already; nothing to do.", output)
        return json.loads((output / folder.METRICS_FILE).read_text(encoding="utf-8"))
    model = AnomalyNcd.load_from_checkpoint(run / folder.CHECKPOINT_FILE, map_location="cpu").eval()
    plan, joined, rows = _plan(run, results, model, said, earlier, names)
    features = given(results.batch.region_feature, "The run holds no features of its regions").numpy()
    appearance = given(results.batch.region_appearance, "The run doesn't hold what its regions look like").numpy()
    probabilities = torch.from_numpy(refit(model, plan, features, appearance))
    settled = plan.settled(joined, rows)
    batch = replace(results.batch, region_head_class_id=None, region_class_probabilities=probabilities)
    batch.said_class_id = slots_said(settled, results, plan.slot_names)
    results = replace(results, batch=batch, slot_names=list(plan.slot_names), normal_slot=plan.normal_slot)
    shutil.copytree(run / results.regions_folder, output / "regions", copy_function=shutil.copyfile, dirs_exist_ok=True)
    facts = {name: value for name, value in results.facts.items() if "agreement" not in name}  # of clusters, no longer
    results = replace(results, regions_folder="regions", facts=facts)
    digest = digest_of_classes(results)
    folder.write_json(output / NAMES_FILE, {**naming_of(plan.slot_names, plan.class_names), "of": digest})
    folder.write_json(output / FILE_NAME, Corrections(tuple(settled), of=digest).plain())
    with whole_file(output / PRIOR_FILE) as unfinished:
        np.savez_compressed(unfinished, prior=plan.prior.astype(np.float16), slot_names=np.array(plan.slot_names))
    if (run / folder.CONFIG_FILE).is_file():
        shutil.copyfile(run / folder.CONFIG_FILE, output / folder.CONFIG_FILE)
    save_model(model, output / folder.CHECKPOINT_FILE)
    results, metrics = write_run_files(output, results, plan.class_names, run / folder.REPORT_FILE)
    results.save(output / folder.RESULTS_FILE)
    folder.finish(output, plan.class_names)
    logger.info("Classes: %s. Look at %s.", ", ".join(dict.fromkeys(plan.class_names)), output / folder.REPORT_FILE)
    return metrics


def keep_corrections(run: Path, output: Path, before: RunResults, joined: RunResults) -> None:
    """Let corrections hold in a run that goes on from another one, and write them into its folder.

    ``run`` and ``output`` are the folders of both; ``before`` are the results of the run before, ``joined`` those of
    the new one, predicted anew, which are changed in place.
    """
    if not (run / FILE_NAME).is_file():
        return
    key_at = {os.path.realpath(image.path): image.key for image in joined.images}
    keys = {image.key: key_at.get(os.path.realpath(image.path), image.key) for image in before.images}
    regions = [replace(one, image=keys.get(one.image, one.image)) for one in read_corrections(run / FILE_NAME).regions]
    probabilities = given(joined.batch.region_class_probabilities, "The images hold no predictions")
    plan = ClassPlan(list(joined.slot_names), list(joined.slot_names), probabilities.numpy())
    plan.take(regions, rows_of_results(regions, joined))
    joined.batch.said_class_id = slots_said(regions, joined, joined.slot_names)
    corrected = torch.from_numpy(constrained(plan.prior, plan.allowed))
    joined.batch.with_predictions(corrected, joined.merging(joined.slot_names))
    folder.write_json(output / FILE_NAME, Corrections(tuple(regions), of=digest_of_classes(joined)).plain())


def _prior_of(run: Path, slot_names: Sequence[str], said_by_model: np.ndarray) -> np.ndarray:
    """What the clusters said before any correction, ``(R, K)``; what the model says where that wasn't kept."""
    if not (run / PRIOR_FILE).is_file():
        return said_by_model
    with np.load(run / PRIOR_FILE) as kept:
        columns, names = kept["prior"].astype(np.float64), kept["slot_names"].tolist()
    found = np.stack([columns[:, names.index(name)] if name in names else 0 * columns[:, 0] for name in slot_names], 1)
    total = found.sum(axis=1, keepdims=True)
    return np.where(total > LOST_PRIOR, found / np.maximum(total, LOST_PRIOR), said_by_model)


def _plan(
    run: Path, results: RunResults, model: AnomalyNcd, said: Corrections, earlier: Corrections, names: dict[str, Any]
) -> tuple[ClassPlan, list[Correction], list[int | None]]:
    """The classes that there are to be, all corrections, and the region of each."""
    is_of_run = said.of in {None, digest_of_classes(results)}
    naming = said.naming if is_of_run and said.naming is not None else names
    class_names = resolve_class_names({k: naming[k] for k in ("names", "same") if k in naming}, results.slot_names)
    features = given(results.batch.region_feature, "The run holds no features of its regions").numpy()
    said_by_model = probabilities_of(features, model.model.prototypes.detach().numpy())
    plan = ClassPlan(list(results.slot_names), class_names, _prior_of(run, results.slot_names, said_by_model))
    if said.num_classes is not None and is_of_run:
        slots = given(results.batch.region_pred_class_id, "The run holds no predictions").numpy()
        plan.recut(features, slots, said.num_classes)
    later = list(said.regions)
    if not is_of_run:
        later = follow(later, rows_of_results(later, results), plan, (said.naming or {}).get("names", {}))
    everything, keys = earlier.joined(later).regions, set(results.image_keys)
    joined = [one for one in everything if one.box_xyxy is not None or one.image in keys]
    rows = rows_of_results(joined, results)
    plan.take(joined, rows)
    lost = [one.image for one, row in zip(joined, rows, strict=True) if row is None and one.box_xyxy is not None]
    lost += [one.image for one in everything if one.box_xyxy is None and one.image not in keys]
    if lost:
        text = "%d of %d corrections speak of regions or images that the run lacks: of %s. Use its own report."
        logger.warning(text, len(lost), len(everything), ", ".join([*dict.fromkeys(lost)][:3]))
    return plan, joined, rows


def refit(model: AnomalyNcd, plan: ClassPlan, features: np.ndarray, appearance: np.ndarray) -> np.ndarray:
    """Give a model classes that follow the corrections of a plan; those that no region is of any more go.

    Returns ``(R, K)`` float32, probabilities of the classes that there are now. Model and plan are changed in place;
    features ``(R, D)`` and ``appearance`` ``(R, F)`` float are of the plan's regions.
    """
    prototypes = refine_prototypes(features, plan.prior, plan.allowed, appearance)
    found = constrained(probabilities_of(features, prototypes), plan.allowed)
    is_kept = np.bincount(found.argmax(axis=1), minlength=len(plan.slot_names)) > 0
    is_kept |= [slot == plan.normal_slot or name in plan.of_images for slot, name in enumerate(plan.slot_names)]
    plan.keep(is_kept)
    slots = replace(
        model.slots,
        num_novel=len(plan.slot_names),
        given_names=tuple(plan.class_names),
        has_normal=plan.normal_slot is not None,
        numbers=plan.numbers(),
    )
    model.model.replace_classes(torch.from_numpy(prototypes[is_kept])[None], slots)
    model.hparams["num_novel_classes"] = slots.num_novel
    return constrained(probabilities_of(features, prototypes[is_kept]), plan.allowed)
