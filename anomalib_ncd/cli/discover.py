# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-ncd discover``: from images and anomaly maps to a folder of results."""

from __future__ import annotations

import logging
import shlex
from argparse import SUPPRESS
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from anomalib_ncd.cli import detector_flags
from anomalib_ncd.cli.command import Command, CommandParser
from anomalib_ncd.regions.settings import PAPER_REGIONS, RegionSettings
from anomalib_ncd.settings import PAPER, RunOptions, TrainingSettings, plain_data

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataFlags:
    """Arguments of NcdDataModule.

    Attributes:
        base: Labelled base classes, `images/<class>` and `masks/<class>`, or `synthetic` to have some painted.
        labels: For scores alone: `folders`, or a CSV file with the columns image and class. For defects: one with left,
            top, right and bottom as well, or a folder of masks with numbers of classes.
        normal_label: Label of good images.
        image_list: Text file of relative paths that narrows `images` down.
        examples: Folder of images of known kinds, `<class>/…`; for clusters.
        normal_images: Folder of good images; a detector is fitted on them where neither maps nor detector are given.
        score_range: Score range of the maps, for MEBin lowest and highest peak; fitted to them by default.
        num_workers: Processes that load images.
        seed: Seed of training and clusters.
    """

    base: str | None = None
    labels: str | None = None
    normal_label: str = "good"
    image_list: str | None = None
    examples: str | None = None
    normal_images: str | None = None
    score_range: tuple[float, float] | None = None
    num_workers: int = 0
    seed: int = 0


@dataclass(frozen=True)
class ModelFlags:
    """Arguments of AnomalyNcd.

    Attributes:
        backbone: timm name of a network, or `offline`; `a+b` for two, to cluster. Default: the paper's if at hand.
        backbone_weights: File of its weights, `fileA+fileB` for two; else timm's cache or hub.
        image_size: Side in pixels at which the network sees a region; its own by default.
        num_novel_classes: Number of classes, normal included, or `auto`.
        false_reject_rate: Share of new regions of known classes that may be called unknown; null for none.
    """

    backbone: str | None = None
    backbone_weights: str | None = None
    image_size: int | None = None
    num_novel_classes: int | Literal["auto"] = "auto"
    false_reject_rate: float | None = 0.02


def _add_discover(parser: CommandParser) -> None:
    """Add the flags of the datamodule, the model and the run, side by side."""
    parser.usage = "anomalib-ncd discover --images FOLDER --output FOLDER [flags]"
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
    helped = "Values where none are given: those of the paper, for MVTec AD; MTD has merging_temperature 50."
    parser.add_argument("--preset", type=Literal["paper"] | None, help=helped)
    parser.add_argument("--output", type=Path, required=True, help="Folder of the run; an interrupted run goes on.")
    parser.add_argument("--images", type=Path, required=True, help="Folder of images, searched recursively.")
    parser.add_argument("--anomaly_maps", type=Path | None, help="Folder of maps, paired by relative path and stem.")
    detector_flags.add_detector_arguments(parser)
    helped = "Cluster, or train: for the paper's method or base classes. Default: train with `base`, or cluster."
    parser.add_argument("--method", type=Literal["train", "cluster"] | None, help=helped)
    for flags in (DataFlags, ModelFlags):
        parser.add_class_arguments(flags, as_group=False)
    parser.add_class_arguments(RunOptions, as_group=False, skip={"precision"})
    parser.add_argument("--pretrained", type=bool, default=True, help=SUPPRESS)  # false: random weights, for tests
    parser.add_settings(TrainingSettings, "training")
    parser.add_settings(RegionSettings, "regions")


def preset_defaults(preset: str) -> dict[str, Any]:
    """Values of the flags that a preset sets; none for a name that the parser will refuse."""
    if preset != "paper":
        return {}
    groups = {"training": asdict(PAPER), "regions": asdict(PAPER_REGIONS)}
    nested = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    return {"method": "train", "max_epochs": 50, "backbone": "vit_base_patch8_224.dino", **nested}


def _run_discover(config: Namespace) -> None:
    _check_maps(config)
    if config.method is None:  # docs/guides/method.md says why
        config.method = "cluster" if config.base is None else "train"
        if config.base is None:
            logger.info("Regions are clustered; `--method train` trains as the paper does.")

    # After the flags are read and found to be in order: this takes ten seconds of a processor.
    from lightning.pytorch import seed_everything

    from anomalib_ncd.data.datamodule import NcdDataModule
    from anomalib_ncd.models.lightning_model import AnomalyNcd
    from anomalib_ncd.runs.detector import choose_backbone, device_of
    from anomalib_ncd.runs.discover import discover

    device_of(config.accelerator)
    if config.backbone is None:
        config.backbone = choose_backbone(
            config.backbone_weights, detector_flags.settings_of_run(config.output).get("backbone")
        )
    seed_everything(config.seed, workers=True, verbose=False)
    # Before any map is predicted: without weights for the backbone there is nothing to go on with.
    model = AnomalyNcd(
        **_taken(config, ModelFlags),
        pretrained=config.pretrained,
        training=TrainingSettings(**vars(config.training)),
    )
    fits = config.anomaly_maps is None and config.detector.ckpt_path is None
    datamodule = NcdDataModule(
        images=config.images,
        anomaly_maps=config.anomaly_maps or detector_flags.detector_to_discover_with(config),
        regions=RegionSettings(**vars(config.regions)),
        work_dir=config.output,
        **_taken(config, DataFlags),
    )
    options = RunOptions(config.max_epochs, config.accelerator)
    discover(model, datamodule, config.output, config.method, options, plain_config(config), fits)


def _check_maps(config: Namespace) -> None:
    detector_flags.refuse_two_sources(config)
    detector = config.detector
    if detector.ckpt_path is not None and detector.class_path is None:
        msg = f"`--detector.class_path` is missing: which anomalib model {detector.ckpt_path} is of."
        raise ValueError(msg)
    if config.anomaly_maps is None and detector.class_path is None and config.normal_images is None:
        msg = (
            "Nothing tells where the images are anomalous. Give `--normal_images`, a folder of good images that a "
            "detector is fitted on; or `--anomaly_maps`, a folder of maps from any tool; or a detector that is fitted, "
            "`--detector.class_path` with `--detector.ckpt_path`."
        )
        raise ValueError(msg)


def _taken(config: Namespace, flags: type) -> dict[str, Any]:
    return {field.name: config[field.name] for field in fields(flags)}


def plain_config(config: Namespace) -> dict[str, Any]:
    """Turn the resolved flags into plain data that can be written as YAML."""
    skipped = {"config", "__default_config__"}
    return plain_data({key: value for key, value in config.as_dict().items() if key not in skipped})


def _add_demo(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="Folder for images and results.")
    helped = "Compare regions with the good images and cluster them, or train with labelled base classes."
    parser.add_argument("--method", type=Literal["cluster", "train"], default="cluster", help=helped)
    parser.add_argument("--seed", type=int, default=0, help="Seed of images and training.")


def _run_demo(config: Namespace) -> None:
    """Draw images with five kinds of defect and run ``discover`` on them."""
    from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

    data = generate_dataset(
        config.output / "data", num_train_good=20, num_per_kind=16, base_kinds=DEFECT_KINDS[5:9], seed=config.seed
    )
    logger.info("Drew images with %s in %s.", ", ".join(data.kinds), data.root)
    args = ["--images", data.test_dir, "--normal_images", data.train_good_dir, "--output", config.output]
    args += ["--labels", data.labels_csv, "--num_novel_classes", len(data.kinds) + 1]
    args += ["--backbone", "offline", "--method", config.method, "--seed", config.seed, "--accelerator", "cpu"]
    if config.method == "train":
        args += ["--base", data.base_dir, "--training.num_cached_views", 4]
    command = list(map(str, args))
    logger.info("What follows is: anomalib-ncd discover %s", shlex.join(command))
    parser = CommandParser()
    _add_discover(parser)
    _run_discover(parser.parse_args(command))
    flags = "--images FOLDER --normal_images FOLDER_OF_GOOD_ONES --output runs/mine"
    logger.info("Next, your own images: anomalib-ncd discover %s", flags)


COMMANDS = {
    "discover": Command("Discover defect classes in images and their anomaly maps.", _add_discover, _run_discover),
    "demo": Command("Do the whole way on images that are drawn for it, without network.", _add_demo, _run_demo),
}
