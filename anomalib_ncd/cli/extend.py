# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd extend``: new kinds of defect in new images, added to the classes of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.cli.detector_flags import add_detector_arguments, flagged_detector, needed_detector_flags
from anomalib_ncd.cli.discover import plain_config


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
    if config.anomaly_maps is not None and config.detector.class_path is not None:
        msg = "Give either `--anomaly_maps` or `--detector.class_path` with `--detector.ckpt_path`."
        raise ValueError(msg)

    from anomalib_ncd.data.datamodule import NcdDataModule
    from anomalib_ncd.runs.devices import checked_device
    from anomalib_ncd.runs.extend import extend_run

    device = checked_device(config.device)
    if config.anomaly_maps is None and config.detector.class_path is None:
        config.detector = needed_detector_flags(config.run)  # for `config.yaml` as well
    datamodule = NcdDataModule(
        config.images,
        config.anomaly_maps or flagged_detector(config.detector),
        labels=config.labels,
        image_list=config.image_list,
        num_workers=config.num_workers,
        work_dir=config.output,
    )
    number = None if config.num_new_classes == "auto" else config.num_new_classes
    plain = plain_config(config) | {"command": "extend"}
    extend_run(config.run, datamodule, config.output, number, config.min_regions, device, plain)
