# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A whole discovery run and the folder it leaves."""

import json
import logging
import shutil
import time
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from anomalib.models import AnomalibModule

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.models.checkpoints import own_part, read_checkpoint, save_model
from anomalib_ncd.models.describer import refuse_training
from anomalib_ncd.models.encoded_regions import given
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs import detector, folder
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.runs.examples import cut_examples, learn_examples
from anomalib_ncd.runs.files import gather_results, write_run_files
from anomalib_ncd.runs.naming import carry_names, check_names, name_classes, name_known
from anomalib_ncd.settings import RunOptions
from anomalib_ncd.visualization.gallery import draw_base_classes

logger = logging.getLogger(__name__)

SHARE_OF_TIME = 0.05
WARNED_OF_BEFORE = {"images_with_region", "good_images"}  # when regions were cut and described


class RunCheckpoint(ModelCheckpoint):
    """Saves after the last epoch, and after others as often as saving takes little of the time.

    An epoch on cached views takes less than a second, and a checkpoint of a large backbone as long. A run that is
    killed loses at most twenty times the seconds that a save takes.
    """

    def __init__(self, dirpath: str | Path, filename: str, share_of_time: float = SHARE_OF_TIME) -> None:
        super().__init__(dirpath, filename, enable_version_counter=False, save_on_train_epoch_end=True)
        self.share_of_time = share_of_time
        self._wait_until = 0.0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save, if it is time to or the last epoch."""
        start = time.perf_counter()
        if start < self._wait_until and trainer.current_epoch + 1 != trainer.max_epochs:
            return
        super().on_train_epoch_end(trainer, pl_module)
        end = time.perf_counter()
        self._wait_until = end + (end - start) / self.share_of_time


def discover(
    model: AnomalyNcd,
    datamodule: NcdDataModule,
    output: str | Path,
    method: Literal["train", "cluster"] = "train",
    options: RunOptions | None = None,
    config: dict[str, Any] | None = None,
    fit_detector: bool = False,
) -> dict[str, Any]:
    """Discover classes and leave a folder of results.

    An interrupted run goes on where it stopped when it is started again with the same settings; a finished run is left
    as it is. Names in the folder's ``class_names.json`` go with the regions that were named.

    Args:
        model: Model to train, or to take features from.
        datamodule: Images, maps and base classes; regions are kept in its ``work_dir``, else in ``output``.
        output: Folder of the run.
        method: ``"train"`` for AnomalyNCD, ``"cluster"`` for clusters of the frozen features.
        options: How the run is carried out.
        config: Resolved flags to write as ``config.yaml``.
        fit_detector: Whether the datamodule's detector is fitted on its normal images first, and kept in the folder.

    Returns:
        What ``metrics.json`` says.

    Raises:
        ValueError: If the folder holds a run with other settings, one that was trained on other images, maps, weights
            or base classes, which changes nothing in it; for names that don't fit, or no such accelerator.
    """
    output, options = Path(output), options or RunOptions()
    device = detector.device_of(options.accelerator)
    if method == "train":
        datamodule.refuse_examples()
        refuse_training(None, model.model.describer, ())
        _refuse_fewer_epochs(output / folder.CHECKPOINT_FILE, options.max_epochs)
    datamodule.keep_in(output)
    datamodule.setup()
    if (output / folder.RESULTS_FILE).is_file():
        check_names(output, [])  # names of the classes that are there
    asked = {"max_epochs": options.max_epochs, "precision": options.precision}
    made_from = partial(folder.MadeFrom.of, model, datamodule, method, **asked)  # once all is there
    if fit_detector and isinstance(unfitted := datamodule.anomaly_maps, AnomalibModule):
        good, bit_depth = datamodule.normal_records, datamodule.region_settings.bit_depth
        datamodule.anomaly_maps = detector.fit_detector(
            unfitted, good, output, bit_depth, options.accelerator, lambda: folder.changed_inputs(output, made_from())
        )
    if folder.claim_folder(output, made_from(), config) == "finished":
        return _take_up_finished(output)
    if method == "train":
        _settle_num_classes(model, datamodule, output, device)
        check_names(output, model.slots.default_names)
        batches = _train_and_predict(model, datamodule, output, options)
    else:
        examples = cut_examples(datamodule) if datamodule.examples_found else []
        batches = discover_by_clustering(model, datamodule, seed=datamodule.sampler_seed, device=device)
        if examples:
            batches = learn_examples(model, datamodule, batches, examples)
        check_names(output, model.slots.default_names)
        save_model(model, output / folder.CHECKPOINT_FILE)
    shutil.rmtree(output / "cached_views", ignore_errors=True)  # of use to a run that is interrupted, and large
    slot_names = model.slots.default_names  # clusters have a slot for normal only where one was found
    merging = replace(model.region_merging, class_names=tuple(slot_names))
    estimate = model.num_classes_estimate
    results = gather_results(batches, datamodule, merging, output, None if estimate is None else estimate.plain())
    class_names = name_known(output, results, model.class_names if datamodule.examples_found else slot_names)
    results.save(output / folder.RESULTS_FILE)
    results, metrics = write_run_files(output, results, class_names)
    folder.finish(output, class_names)
    _say_result(results, class_names, metrics, output)
    return metrics


def _take_up_finished(output: Path) -> dict[str, Any]:
    """Leave a finished run as it is, but for names that were given to its classes since."""
    results = RunResults.load(output / folder.RESULTS_FILE)
    class_names = carry_names(output, results)
    if class_names != folder.notes(output).get("names"):
        name_classes(output)
    else:
        report = output / folder.REPORT_FILE
        logger.info("The run in %s is finished already; nothing to do. Its report is %s.", output, report)
    return json.loads((output / folder.METRICS_FILE).read_text(encoding="utf-8"))


def _settle_num_classes(model: AnomalyNcd, datamodule: NcdDataModule, output: Path, device: torch.device) -> None:
    """Estimate the number of classes where it is not known; training that goes on keeps the number it began with."""
    checkpoint = output / folder.CHECKPOINT_FILE
    if checkpoint.is_file():
        model.take_saved_number(own_part(read_checkpoint(checkpoint)))
    model.settle_num_classes(datamodule, device)


def _train_and_predict(
    model: AnomalyNcd, datamodule: NcdDataModule, output: Path, options: RunOptions
) -> list[NcdBatch]:
    """Train as far as it is not done yet, then predict every image."""
    checkpoint = output / folder.CHECKPOINT_FILE
    saver = RunCheckpoint(output, Path(folder.CHECKPOINT_FILE).stem)
    how = {"devices": 1, "default_root_dir": output / "engine", "enable_model_summary": False, **asdict(options)}
    engine = Engine(callbacks=[saver], **how)
    if _epochs_done(checkpoint) < options.max_epochs:
        engine.fit(model, datamodule=datamodule, ckpt_path=checkpoint if checkpoint.is_file() else None)
        if datamodule.base_class_names:
            picture = draw_base_classes(datamodule.train_regions(), datamodule.base_class_names)
            write_image(output / folder.BASE_FILE, picture)
    predicted = engine.predict(model, datamodule=datamodule, return_predictions=True, ckpt_path=checkpoint)
    return list(predicted or [])


def _refuse_fewer_epochs(checkpoint: Path, max_epochs: int) -> None:
    """Raise if a run was trained for longer than it is asked for."""
    done = _epochs_done(checkpoint)
    if done > max_epochs:
        msg = f"{checkpoint} was trained for {done} epochs, not {max_epochs} (`max_epochs`); choose another folder."
        raise ValueError(msg)


def _epochs_done(checkpoint: Path) -> int:
    """Epochs that a checkpoint was trained for; 0 where there is none."""
    if not checkpoint.is_file():
        return 0
    saved = read_checkpoint(checkpoint)
    if own_part(saved)["slots"]["from_clusters"]:
        msg = f"{checkpoint.parent} holds a run of the method 'cluster'; choose another folder for training."
        raise ValueError(msg)
    return int(saved["epoch"]) + 1


def _say_result(results: RunResults, class_names: list[str], metrics: dict[str, Any], output: Path) -> None:
    slots = given(results.batch.pred_class_id, "The batch holds no predictions").tolist()
    predicted = Counter(class_names[slot] for slot in slots if slot >= 0)
    found = ", ".join(f"{name}: {predicted[name]}" for name in dict.fromkeys(class_names) if predicted[name])
    logger.info("%d images sorted into classes: %s.", len(results.batch), found)
    image = metrics.get("image", {})
    if "nmi" in image:
        logger.info("NMI %.3f, ARI %.3f, accuracy %.3f.", image["nmi"], image["ari"], image["accuracy"])
    for name, fact in metrics["facts"].items():
        if fact["advice"] and name not in WARNED_OF_BEFORE:
            logger.warning("%s %s", fact["text"], fact["advice"])
    logger.info("Results are in %s; open %s in a browser first.", output, output / folder.REPORT_FILE)
