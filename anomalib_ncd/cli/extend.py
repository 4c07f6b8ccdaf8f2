# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd extend``: new kinds of defect in new images, added to the classes of a run."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from anomalib_ncd.cli.detector_flags import add_detector_arguments, detector_of_run, flagged_detector
from anomalib_ncd.cli.discover import plain_config
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.models.checkpoints import save_model
from anomalib_ncd.models.clustering.new_classes import check_numbers
from anomalib_ncd.models.known_regions import encode_images
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.results.class_names import FILE_NAME, read_class_names
from anomalib_ncd.results.joined_runs import free_keys, join_labels, select_images
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.discover import claim_folder
from anomalib_ncd.runs.extension import Extension, extend_classes, require_known_regions
from anomalib_ncd.runs.files import CHECKPOINT_FILE, RESULTS_FILE, regions_folder_of, write_run_files
from anomalib_ncd.visualization.report import map_regions

logger = logging.getLogger(__name__)


def add_extend_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``extend``."""
    parser.add_argument("run", type=Path, help="Folder of a finished run; it stays as it is.")
    parser.add_argument("--images", type=Path, required=True, help="Folder of new images, searched recursively.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the extended run.")
    parser.add_argument("--anomaly_maps", type=Path | None, help="Folder of their maps; else a detector makes them.")
    add_detector_arguments(parser)
    parser.add_argument("--num_new_classes", type=int | Literal["auto"], default="auto", help="Number of new classes.")
    parser.add_argument("--min_regions", type=int, default=3, help="Fewest regions of a new class, with `auto`.")
    parser.add_argument("--labels", type=str | None, help='For scores alone: "folders", or a CSV file.')
    parser.add_argument("--image_list", type=Path | None, help="Text file of relative paths that narrows images down.")
    parser.add_argument("--num_workers", type=int, default=0, help="Processes that load images.")
    parser.add_argument("--device", type=str, default="cpu", help="Device of the encoder.")


def run_extend(config: Namespace) -> None:
    """Run ``extend`` with parsed flags."""
    datamodule = NcdDataModule(
        config.images,
        _maps(config),
        labels=config.labels,
        image_list=config.image_list,
        num_workers=config.num_workers,
        work_dir=config.output,
    )
    number = None if config.num_new_classes == "auto" else config.num_new_classes
    plain = plain_config(config) | {"command": "extend"}
    extend_run(config.run, datamodule, config.output, number, config.min_regions, config.device, plain)


def extend_run(
    run: str | Path,
    datamodule: NcdDataModule,
    output: str | Path,
    num_new_classes: int | None = None,
    min_regions: int = 3,
    device: str = "cpu",
    config: dict[str, Any] | None = None,
) -> Extension:
    """Classify new images with a run, discover classes among what is unknown, and leave a run of all images.

    The run's own classes keep slot, name and prototype; new ones are called ``class_<n>`` with the next numbers. The
    new folder holds what ``discover`` leaves: it can be named, packed, used for classifying, and extended again.

    Args:
        run: Folder of a finished run; it stays as it is.
        datamodule: New images and their maps. Score range and settings of regions are taken from the run. Images that
            the run has already are taken once.
        output: Folder of the extended run.
        num_new_classes: Number of new classes. Defaults to ``None``: as many as the unknown regions fall into.
        min_regions: Fewest regions of a new class where the number is not given; smaller groups stay unknown.
        device: Where the encoder runs.
        config: Resolved settings to write, and to compare with those of the run that is taken up again.

    Returns:
        What was found; no new class is a result, not an error.

    Raises:
        FileNotFoundError: If the run is not finished, or images, maps or crops are missing.
        ValueError: If both folders are one, the output holds another run, or the run is of an older version.
    """
    run, output = Path(run), Path(output)
    if run.resolve() == output.resolve():
        msg = f"`output` is the folder of the run itself, {run}; choose another one."
        raise ValueError(msg)
    check_numbers(num_new_classes, min_regions)
    results = RunResults.load(run / RESULTS_FILE)
    model = AnomalyNcd.load_from_checkpoint(run / CHECKPOINT_FILE, map_location="cpu").eval().to(device)
    require_known_regions(model)
    _take_names(model, run, run)
    output.mkdir(parents=True, exist_ok=True)
    claim_folder(output, config)
    joined = _join(results, run, _encode(model, datamodule, output), datamodule, output)
    extension = extend_classes(model.cpu(), joined.batch, num_new_classes, min_regions)
    _take_names(model, run, output)
    save_model(model, output / CHECKPOINT_FILE)
    position = map_regions(np.asarray(joined.batch.region_feature))
    joined = replace(joined, slot_names=model.novel_class_names, region_position=position)
    joined.save(output / RESULTS_FILE)
    write_run_files(output, joined, model.class_names)
    _say_result(extension, model, output)
    return extension


def _maps(config: Namespace) -> Path | AnomalibModule:
    """Folder of maps or detector that the flags name, else the detector of the run."""
    if config.anomaly_maps is not None and config.detector.class_path is not None:
        msg = "Give either `--anomaly_maps` or `--detector.class_path` with `--detector.ckpt_path`."
        raise ValueError(msg)
    if config.anomaly_maps is not None:
        return config.anomaly_maps
    return detector_of_run(config.run) if config.detector.class_path is None else flagged_detector(config.detector)


def _take_names(model: AnomalyNcd, run: Path, output: Path) -> None:
    """Call the classes as the user did, in the extended run or else in the run; the file of names goes along."""
    if (run / FILE_NAME).is_file() and not (output / FILE_NAME).is_file():
        shutil.copyfile(run / FILE_NAME, output / FILE_NAME)
    if (output / FILE_NAME).is_file():
        model.class_names = read_class_names(output / FILE_NAME, model.novel_class_names)


def _encode(model: AnomalyNcd, datamodule: NcdDataModule, output: Path) -> NcdBatch:
    """New images with the features of their regions, cut as those of the run were."""
    low, high = model.score_range.double().tolist()
    datamodule.score_range = (low, high)
    datamodule.regions = model.region_settings
    datamodule.image_size = model.model.encoder.image_size
    datamodule.keep_in(output)
    loader = tqdm(datamodule.test_dataloader(), desc="Extracting features", unit="batch")
    return NcdBatch.collate(encode_images(model, loader))


def _join(results: RunResults, run: Path, new: NcdBatch, datamodule: NcdDataModule, output: Path) -> RunResults:
    """Images of the run and new ones as one run, whose crops lie in the new folder."""
    table, records = datamodule.region_table(), results.images
    again = set(new.image_path)
    kept = [index for index, path in enumerate(results.batch.image_path) if path not in again]
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
        regions_folder=regions_folder_of(table, output),
    )


def _say_result(extension: Extension, model: AnomalyNcd, output: Path) -> None:
    """Say in a few lines what was found."""
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
