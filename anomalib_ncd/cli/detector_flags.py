# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The flags that name a trained anomalib detector, shared by the commands."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from anomalib.models import AnomalibModule
from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd.data.detector_maps import load_detector


def add_detector_arguments(parser: ArgumentParser) -> None:
    """Add the flags of a detector."""
    parser.add_argument("--detector.class_path", type=str | None, help="Detector that makes the maps instead.")
    parser.add_argument("--detector.init_args", type=dict[str, Any], default={}, help="Its constructor's arguments.")
    parser.add_argument("--detector.ckpt_path", type=Path | None, help="Its Lightning checkpoint.")


def flagged_detector(config: Namespace) -> AnomalibModule:
    """Load the detector that the flags name.

    Args:
        config: ``class_path``, ``init_args`` and ``ckpt_path``.

    Returns:
        The detector, on the CPU.

    Raises:
        TypeError: If the class is no anomalib model.
        ValueError: If there is no checkpoint.
        FileNotFoundError: If the checkpoint doesn't exist.
    """
    module_name, _, class_name = config.class_path.rpartition(".")
    try:
        detector_class = getattr(import_module(module_name or "anomalib.models"), class_name, None)
    except ModuleNotFoundError:
        detector_class = None
    if not (isinstance(detector_class, type) and issubclass(detector_class, AnomalibModule)):
        msg = f"`--detector.class_path` must name an anomalib model, got {config.class_path!r}."
        raise TypeError(msg)
    if config.ckpt_path is None:
        msg = f"`--detector.ckpt_path` is missing: the checkpoint of the trained {class_name}."
        raise ValueError(msg)
    return load_detector(detector_class, config.ckpt_path, **config.init_args)
