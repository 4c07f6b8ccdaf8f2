# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint of AnomalyNcd holds besides the weights, as plain data."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch import LightningModule, Trainer

from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.regions.writing import whole_file

CHECKPOINT_KEY = "anomalib_ncd"
OTHER_VERSION = "The checkpoint was written by another version of anomalib_ncd; discover the classes again."
QUIET_TRAINER: dict[str, Any] = dict.fromkeys(
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)


def own_part(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What AnomalyNcd put into a checkpoint; ``ValueError`` if another model or another version of it wrote that."""
    saved = checkpoint.get(CHECKPOINT_KEY)
    if saved is None:
        msg = "This is no checkpoint of AnomalyNcd: it was written by another model."
        raise ValueError(msg)
    if not {"slots", "describer", "num_classes_estimate", "region_settings"} <= set(saved):
        raise ValueError(OTHER_VERSION)
    return saved


def read_checkpoint(file: str | Path, *, mmap: bool = True) -> dict[str, Any]:
    """Read a checkpoint of AnomalyNcd; no code in it is run, and with `mmap` weights are read when they are used.

    ``FileNotFoundError`` if there is no such file; ``ValueError`` as :func:`own_part`, or if it is damaged, or holds
    more than plain data.
    """
    try:
        with anomalib_safe_globals():
            checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        msg = f"{file} is no checkpoint: it is cut off, damaged, or holds more than plain data, and is not loaded."
        raise ValueError(msg) from error
    if not isinstance(checkpoint, dict):
        msg = f"{file} is no checkpoint of AnomalyNcd, but holds {type(checkpoint).__name__}."
        raise ValueError(msg)  # noqa: TRY004 - for users it is a wrong file, not a wrong type
    own_part(checkpoint)
    return checkpoint


def refuse_other_settings(saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse settings of a checkpoint that differ from the model's own, by the names of its arguments."""
    for name, value in own.items():
        if saved.get(name) != value:
            msg = f"The checkpoint was trained with {name}={saved.get(name)!r}, but the model has {value!r}."
            raise ValueError(msg)


def write_class_names(file: str | Path, class_names: Sequence[str]) -> bool:
    """Put class names into a checkpoint of AnomalyNcd; ``False`` where it has these names already."""
    checkpoint = read_checkpoint(file, mmap=False)
    saved = own_part(checkpoint)
    named = ClassSlots.from_plain(saved["slots"]).named(class_names).plain()
    if saved["slots"] == named:
        return False
    saved["slots"] = named
    with whole_file(file) as unfinished:
        torch.save(checkpoint, unfinished)
    return True


def save_model(model: LightningModule, file: str | Path) -> None:
    """Write a checkpoint without a training run, into a folder that exists; a reader never sees a half-written one."""
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=Path(file).parent, **QUIET_TRAINER)
    trainer.strategy.connect(model)
    with whole_file(file) as unfinished:
        trainer.save_checkpoint(unfinished, weights_only=True)
