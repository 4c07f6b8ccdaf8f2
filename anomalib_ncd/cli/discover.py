# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd discover``: from images and anomaly maps to a folder of results."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from lightning.pytorch import seed_everything

from anomalib_ncd.cli.detector_flags import add_detector_arguments, flagged_detector
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.synthetic_base import SyntheticSettings
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.runs.discover import RunOptions, discover

logger = logging.getLogger(__name__)

NOT_MODEL_FLAGS: set[str | int] = {"evaluator", "visualizer"}
NOT_DATA_FLAGS: set[str | int] = {"images", "anomaly_maps", "detector_ckpt", "work_dir"}


def add_discover_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``discover``: those of the datamodule, the model and the run, side by side."""
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the run; an interrupted run goes on.")
    parser.add_argument("--images", type=Path, required=True, help="Folder of images, searched recursively.")
    parser.add_argument("--anomaly_maps", type=Path | None, help="Folder of maps, paired by relative path and stem.")
    add_detector_arguments(parser)
    parser.add_argument(
        "--method",
        type=Literal["train", "cluster"] | None,
        help="Train, or only cluster. Default: cluster where `normal_images` are given, but no `base`; else train.",
    )
    parser.add_class_arguments(RunOptions, as_group=False)
    parser.add_class_arguments(NcdDataModule, as_group=False, skip=NOT_DATA_FLAGS, fail_untyped=False)
    parser.add_class_arguments(AnomalyNcd, as_group=False, skip=NOT_MODEL_FLAGS, fail_untyped=False)


def run_discover(config: Namespace) -> None:
    """Run ``discover`` with parsed flags."""
    output = Path(config.output)
    if config.method is None:
        config.method = _default_method(config)
    plain = plain_config(config)
    if (config.anomaly_maps is None) == (config.detector.class_path is None):
        msg = "Give either `--anomaly_maps` or `--detector.class_path` with `--detector.ckpt_path`."
        raise ValueError(msg)
    seed_everything(config.seed, workers=True)
    names = _argument_names()
    # Before any map is predicted: without weights for the backbone there is nothing to go on with.
    model = AnomalyNcd(**{name: config[name] for name in names["model"]})
    anomaly_maps = config.anomaly_maps or flagged_detector(config.detector)
    data_args = {name: config[name] for name in names["data"]}
    for name, settings_class in (("regions", RegionSettings), ("synthetic", SyntheticSettings)):
        if data_args[name] is not None:
            data_args[name] = settings_class(**vars(data_args[name]))
    datamodule = NcdDataModule(images=config.images, anomaly_maps=anomaly_maps, work_dir=output, **data_args)
    datamodule.setup()
    options = RunOptions(**{name: config[name] for name in names["run"]})
    discover(model, datamodule, output, config.method, options, plain)


def _default_method(config: Namespace) -> Literal["train", "cluster"]:
    """The better method on painted defects, see docs/discovery.md."""
    if config.normal_images is None or config.base is not None:
        return "train"
    logger.info("Regions are compared with normal images and clustered; `--method train` trains instead.")
    return "cluster"


def plain_config(config: Namespace) -> dict[str, Any]:
    """Turn the resolved flags into plain data that can be written as YAML."""

    def plain(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Namespace):
            return plain(value.as_dict())
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry) for entry in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return vars(value) if hasattr(value, "__dataclass_fields__") else str(value)

    return {key: plain(value) for key, value in config.as_dict().items() if key not in {"config", "__default_config__"}}


def _argument_names() -> dict[str, list[str]]:
    """Names of the flags that go to the datamodule, the model and the run."""
    owners: dict[str, tuple[type, set[str | int]]] = {
        "data": (NcdDataModule, NOT_DATA_FLAGS),
        "model": (AnomalyNcd, NOT_MODEL_FLAGS),
        "run": (RunOptions, set()),
    }
    return {
        owner: [name for name in inspect.signature(owner_class).parameters if name not in skipped]
        for owner, (owner_class, skipped) in owners.items()
    }
