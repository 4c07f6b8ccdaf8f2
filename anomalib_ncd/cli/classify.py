# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""New images, with what a run has learnt: ``anomalib-ncd classify``, ``pack`` and ``extend``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.cli import detector_flags
from anomalib_ncd.cli.command import Command
from anomalib_ncd.cli.console import Stopped
from anomalib_ncd.cli.discover import plain_config
from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.detectors import Detector, load_artefact_detector, load_detector_file
from anomalib_ncd.deploy.line.folder_run import MapFolder, WatchOptions, classify_folder
from anomalib_ncd.deploy.packing.artefact import MANIFEST_NAME
from anomalib_ncd.regions.reading.listing import ImageLimits

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule

    from anomalib_ncd.data.datamodule import NcdDataModule

logger = logging.getLogger(__name__)


def _add_classify(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="Folder of a run, or what `pack` made of it.")
    parser.add_argument("--images", type=Path, required=True, help="Folder, searched recursively, or an image.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of results; an interrupted one goes on.")
    parser.add_argument("--anomaly_maps", type=Path | None, help="Folder of maps that another tool saves.")
    detector_flags.add_detector_arguments(parser)
    parser.add_argument("--detector.file", type=Path | None, help="Exported detector: .onnx or .xml.")
    parser.add_argument("--sha256", type=str | None, help="Digest that the packed model must have.")
    _add_rate_argument(parser)
    parser.add_argument("--watch", type=bool, default=False, help="Go on with images that come later.")
    parser.add_argument("--stop_after_idle", type=float | None, help="Stop watching after so many idle seconds.")
    parser.add_argument("--poll_seconds", type=float, default=0.5, help="Pause between two looks at the folder.")
    parser.add_class_arguments(WatchOptions, "patience")
    parser.add_class_arguments(ImageLimits, "limits")
    parser.add_argument("--pictures", type=bool, default=True, help="Draw the regions into a picture of each image.")
    parser.add_argument("--masks", type=bool, default=False, help="Put masks into results.jsonl.")
    parser.add_argument("--batch_size", type=int, default=8, help="Images at a time.")
    parser.add_argument("--num_threads", type=int | None, help="Threads of ONNX Runtime or OpenVINO.")
    parser.add_argument("--device", type=str, default="cpu", help="Device of PyTorch.")


def _run_classify(config: Namespace) -> None:
    if config.device != "cpu":
        from anomalib_ncd.runs.detector import checked_device

        checked_device(config.device)
    classifier = _classifier(config)
    try:
        counts = classify_folder(
            classifier,
            config.images,
            config.output,
            watch=WatchOptions(**vars(config.patience)) if config.watch else None,
            poll_seconds=config.poll_seconds,
            stop_after_idle=config.stop_after_idle,
            pictures=config.pictures,
            masks=config.masks,
        )
    except Stopped:
        logger.info("Stopped. What was classified is in %s; the same command goes on.", config.output)
        if config.watch:
            return
        raise
    text = "%d images classified, %d could not be used, %d were done before. Results are in %s."
    logger.info(text, *counts, config.output)


def _add_pack(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Folder of a run.")
    parser.add_argument("--output", type=Path, required=True, help="Folder to write, or file that ends in .zip.")
    detector_flags.add_detector_arguments(parser)
    parser.add_argument("--detector.file", type=Path | None, help="Exported detector: .onnx or .xml.")
    parser.add_argument("--detector.input_size", type=tuple[int, int] | None, help="Height and width it wants.")
    parser.add_argument("--with_detector", type=bool, default=True, help="Pack the run's own detector.")
    parser.add_argument("--runtime", type=Literal["onnx", "openvino", "torch"], default="onnx", help="Of the encoder.")
    kinds = Literal["fp16", "int8", "int8_ptq", "int8_acq"]
    helped = "Smaller weights, OpenVINO only; int8 needs the extra [int8]."
    parser.add_argument("--compression", type=kinds | None, help=helped)
    _add_rate_argument(parser)
    parser.add_argument("--images", type=Path | None, help="Images to check and calibrate with; the run's by default.")
    parser.add_argument("--anomaly_maps", type=Path | None, help="Their maps; the run's by default.")


def _add_rate_argument(parser: ArgumentParser) -> None:
    helped = "Share of regions of known classes that may be called unknown; the run's own by default."
    parser.add_argument("--false_reject_rate", type=float | None, help=helped)


def _run_pack(config: Namespace) -> None:
    from anomalib_ncd.deploy.packing.build import build_artefact
    from anomalib_ncd.deploy.packing.detector_files import check_detector

    datamodule = _regions_of_run(config)
    artefact = build_artefact(
        config.run,
        detector=_detector_to_pack(config),
        detector_input_size=config.detector.input_size,
        runtime=config.runtime,
        compression=config.compression,
        datamodule=datamodule,
        false_reject_rate=config.false_reject_rate,
    )
    packed, manifest = load_artefact_detector(artefact), artefact.manifest
    if packed is not None and datamodule is not None:
        datamodule.setup()
        paths = [record.path for record in datamodule.records]
        check_detector(packed, paths, datamodule.map_paths, manifest.score_range, manifest.regions.bit_depth)
    artefact.save(config.output)
    logger.info("Packed %s; its SHA-256 is %s.", config.output, artefact.sha256)


def _detector_to_pack(config: Namespace) -> AnomalibModule | Path | None:
    """The detector that the flags name, else the one that the run was made with."""
    if config.detector.file is not None:
        return config.detector.file
    if config.detector.class_path is not None:
        return detector_flags.flagged_detector(config.detector)
    flags = detector_flags.detector_flags_of_run(config.run)
    if flags is None or not config.with_detector:
        logger.info("Packed without a detector; `classify` needs one, or maps.")
        return None
    return detector_flags.flagged_detector(flags)


def _classifier(config: Namespace) -> AnomalyClassifier:
    limits = ImageLimits(**vars(config.limits))
    options: dict[str, Any] = {"limits": limits, "batch_size": config.batch_size, "device": config.device}
    detector = _detector(config)
    if config.model.suffix.lower() == ".zip" or (config.model / MANIFEST_NAME).is_file():
        if config.false_reject_rate is not None:
            msg = "`--false_reject_rate` is for runs; a packed model keeps the threshold that it was packed with."
            raise ValueError(msg)
        options |= {"sha256": config.sha256, "num_threads": config.num_threads}
        return AnomalyClassifier.load(config.model, detector, **options)
    if config.sha256 is not None:
        msg = "`--sha256` is for packed models; a run has no digest."
        raise ValueError(msg)
    from anomalib_ncd.deploy.packing.build import classifier_of_run

    of_run = detector or detector_flags.flagged_detector(detector_flags.needed_detector_flags(config.model))
    return classifier_of_run(config.model, of_run, false_reject_rate=config.false_reject_rate, **options)


def _detector(config: Namespace) -> Detector | None:
    """Detector or folder of maps that the flags name; ``None`` where they name none."""
    flags = config.detector
    if sum(given is not None for given in (config.anomaly_maps, flags.class_path, flags.file)) > 1:
        msg = "Give one of `--anomaly_maps`, `--detector.class_path` and `--detector.file`."
        raise ValueError(msg)
    if config.anomaly_maps is not None:
        return MapFolder(config.anomaly_maps, config.images)
    if flags.class_path is not None:
        from anomalib_ncd.data.detector_maps import LightningDetector

        return LightningDetector(detector_flags.flagged_detector(flags), config.device)
    return None if flags.file is None else load_detector_file(flags.file, num_threads=config.num_threads)


def _regions_of_run(config: Namespace) -> NcdDataModule | None:
    """Images and maps that a run was made from, where they are still there."""
    from anomalib_ncd.data.datamodule import NcdDataModule

    settings = detector_flags.settings_of_run(config.run)
    images = config.images or settings.get("images")
    # A refined run has no maps of its own, but settings of the run that it was refined from.
    own = (folder / "anomaly_maps" for folder in (config.run, Path(settings.get("output") or config.run)))
    maps = config.anomaly_maps or settings.get("anomaly_maps") or next(filter(Path.is_dir, own), None)
    if images is None or maps is None or not Path(images).exists() or not Path(maps).is_dir():
        text = (
            "Without images and maps of %s the detector's maps can't be checked; give `--images` and `--anomaly_maps`."
        )
        logger.warning(text, config.run)
        return None
    image_list = None if config.images else settings.get("image_list")
    return NcdDataModule(images, maps, image_list=image_list)


def _add_extend(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Folder of a finished run; it stays as it is.")
    parser.add_argument("--images", type=Path, required=True, help="Folder of new images, searched recursively.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the extended run.")
    parser.add_argument("--anomaly_maps", type=Path | None, help="Folder of their maps; else a detector makes them.")
    detector_flags.add_detector_arguments(parser)
    parser.add_argument("--num_new_classes", type=int | Literal["auto"], default="auto", help="Number of new classes.")
    parser.add_argument("--min_regions", type=int, default=3, help="Fewest regions of a new class, with `auto`.")
    parser.add_argument("--labels", type=str | None, help='For scores alone: "folders", or a CSV file.')
    parser.add_argument("--image_list", type=Path | None, help="Text file of relative paths that narrows images down.")
    parser.add_argument("--num_workers", type=int, default=0, help="Processes that load images.")
    parser.add_argument("--device", type=str, default="cpu", help="Device of the encoder.")


def _run_extend(config: Namespace) -> None:
    detector_flags.refuse_two_sources(config)

    from anomalib_ncd.data.datamodule import NcdDataModule
    from anomalib_ncd.runs.detector import checked_device
    from anomalib_ncd.runs.extend import extend_run

    device = checked_device(config.device)
    if config.anomaly_maps is None and config.detector.class_path is None:
        config.detector = detector_flags.needed_detector_flags(config.run)  # for `config.yaml` as well
    datamodule = NcdDataModule(
        config.images,
        config.anomaly_maps or detector_flags.flagged_detector(config.detector),
        labels=config.labels,
        image_list=config.image_list,
        num_workers=config.num_workers,
        work_dir=config.output,
    )
    number = None if config.num_new_classes == "auto" else config.num_new_classes
    plain = plain_config(config) | {"command": "extend"}
    extend_run(config.run, datamodule, config.output, number, config.min_regions, device, plain)


COMMANDS = {
    "classify": Command(
        "Classify new images with what a run has learnt, once or as a camera writes them.", _add_classify, _run_classify
    ),
    "extend": Command(
        "Discover new kinds of defect in new images and add them to the classes of a run.", _add_extend, _run_extend
    ),
    "pack": Command("Pack a run, and its detector, for places without training code.", _add_pack, _run_pack),
}
