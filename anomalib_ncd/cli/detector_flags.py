# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The flags that name a trained anomalib detector, shared by the commands."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.settings import DETECTOR_FILE

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule

HOST = "anomalib.models"


def add_detector_arguments(parser: ArgumentParser) -> None:
    """Add the flags of a detector."""
    parser.add_argument("--detector.class_path", type=str | None, help="anomalib model that makes the maps.")
    parser.add_argument("--detector.init_args", type=dict[str, Any], default={}, help="Its constructor's arguments.")
    parser.add_argument("--detector.ckpt_path", type=Path | None, help="Its Lightning checkpoint.")


def refuse_two_sources(config: Namespace) -> None:
    """Raise ``ValueError`` for flags that name maps and a detector."""
    if config.anomaly_maps is not None and (config.detector.class_path or config.detector.ckpt_path) is not None:
        msg = "Give either `--anomaly_maps` or `--detector.class_path` with `--detector.ckpt_path`."
        raise ValueError(msg)


def detector_class(config: Namespace) -> type[AnomalibModule]:
    """The class that the flags name; ``TypeError`` if it is no anomalib model."""
    from anomalib.models import AnomalibModule

    module_name, _, class_name = config.class_path.rpartition(".")
    try:
        found = getattr(import_module(module_name or HOST), class_name, None)
    except ModuleNotFoundError:
        found = None
    if not (isinstance(found, type) and issubclass(found, AnomalibModule)):
        msg = f"`--detector.class_path` must name an anomalib model, got {config.class_path!r}."
        raise TypeError(msg)
    return found


def flagged_detector(config: Namespace) -> AnomalibModule:
    """Load the detector that the flags ``class_path``, ``init_args`` and ``ckpt_path`` name, on the CPU."""
    from anomalib_ncd.data.detector_maps import load_detector

    found = detector_class(config)
    if config.ckpt_path is None:
        what = f"the checkpoint of a fitted {found.__name__}"
        msg = f"`--detector.ckpt_path` is missing: {what}; `discover` fits one on `--normal_images`."
        raise ValueError(msg)
    return load_detector(found, config.ckpt_path, **config.init_args)


def detector_to_discover_with(config: Namespace) -> AnomalibModule:
    """The detector that the flags of ``discover`` name; it is yet to be fitted where they name no checkpoint."""
    flags = config.detector
    if flags.ckpt_path is not None or config.normal_images is None:
        detector = flagged_detector(flags)
        flags.ckpt_path = flags.ckpt_path.absolute()
        return detector

    from anomalib_ncd.runs.detector import build_default_detector

    # What is put into the flags is for `config.yaml`, where `classify`, `extend` and `pack` look.
    if flags.class_path is None:
        own, flags.class_path = build_default_detector(), f"{HOST}.Patchcore"
    else:
        try:
            own = detector_class(flags)(**flags.init_args)
        except OSError as error:  # as every error of the hub's client is
            ways = "leave out `--detector.class_path`, or give a fitted `--detector.ckpt_path`, or `--anomaly_maps`"
            msg = f"No weights for {flags.class_path} are at hand ({error}); {ways}."
            raise RuntimeError(msg) from error
    flags.ckpt_path = (config.output / DETECTOR_FILE).absolute()
    return own


def settings_of_run(run: Path) -> dict[str, Any]:
    """What ``config.yaml`` of a run says; nothing where there is none."""
    file = run / "config.yaml"
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{file} is no plain YAML, as `discover` writes it: {error}"
        raise ValueError(msg) from error
    return settings if isinstance(settings, dict) else {}


def detector_flags_of_run(run: Path) -> Namespace | None:
    """Flags of the detector that a run was made with; ``None`` where it was made from saved maps.

    A class outside of anomalib is refused: a folder from elsewhere must not have modules imported.
    """
    found = settings_of_run(run).get("detector")
    flags: dict[str, Any] = found if isinstance(found, dict) else {}
    class_path = flags.get("class_path")
    if class_path is None:
        return None
    if not re.fullmatch(rf"({re.escape(HOST)}\.[\w.]+|\w+)", str(class_path)):
        msg = (
            f"The settings of {run} name the detector {class_path!r}, which is no model of anomalib; if you trust it, "
            "give it as `--detector.class_path` with `--detector.ckpt_path`."
        )
        raise ValueError(msg)
    own = run / DETECTOR_FILE  # the run's own, also where the run was moved
    ckpt_path = own if own.is_file() else flags.get("ckpt_path")
    return Namespace(class_path=class_path, init_args=flags.get("init_args") or {}, ckpt_path=ckpt_path)


def needed_detector_flags(run: Path) -> Namespace:
    """Flags of the detector that a run was made with; ``ValueError`` if it was made from saved maps."""
    flags = detector_flags_of_run(run)
    if flags is None:
        ways = "`--anomaly_maps`, `--detector.class_path` with `--detector.ckpt_path`, or `--detector.file`"
        msg = f"{run} was made from saved maps, so new images need maps as well: give {ways}."
        raise ValueError(msg)
    return flags
