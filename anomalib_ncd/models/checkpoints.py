# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint of AnomalyNcd holds beside the weights, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch import LightningModule, Trainer

from anomalib_ncd.regions.classes.image_classes import CLASS_SEPARATOR

CHECKPOINT_KEY = "anomalib_ncd"


def own_part(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What AnomalyNcd put into a checkpoint.

    Raises:
        ValueError: If another model wrote the checkpoint.
    """
    if CHECKPOINT_KEY not in checkpoint:
        msg = "This is no checkpoint of AnomalyNcd: it was written by another model."
        raise ValueError(msg)
    return checkpoint[CHECKPOINT_KEY]


def plain_part(model: Any) -> dict[str, Any]:  # noqa: ANN401 - an AnomalyNcd, which imports this module
    """What a prediction by the model needs beside its weights.

    Args:
        model: The model to save.

    Returns:
        Plain data.
    """
    return {
        "backbone": model.backbone_name,
        "base_class_names": list(model.base_class_names or []),
        "num_novel_classes": model.num_novel_classes,
        "num_heads": model.num_heads,
        "has_normal_slot": model.has_normal_slot,
        "made_from_clusters": model.made_from_clusters,
        "class_names": model.class_names,
        "num_classes_estimate": model.plain_estimate(),
    }


def is_made_from_clusters(saved: dict[str, Any]) -> bool:
    """Whether a checkpoint holds centres of clusters; older ones say so by having no slot for *normal*."""
    return bool(saved.get("made_from_clusters", not saved.get("has_normal_slot", True)))


def slot_kinds(saved: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a checkpoint has a slot for *normal*, and whether it was made from clusters."""
    return saved.get("has_normal_slot", True), is_made_from_clusters(saved)


def refuse_other_settings(saved: dict[str, Any], backbone: str, num_novel_classes: int, num_heads: int) -> None:
    """Refuse what was trained with other settings than the model has.

    Args:
        saved: The part of the checkpoint that :func:`own_part` gives.
        backbone: The model's setting, as the others.
        num_novel_classes: As above.
        num_heads: As above.

    Raises:
        ValueError: If one of them differs.
    """
    own = {"backbone": backbone, "num_novel_classes": num_novel_classes, "num_heads": num_heads}
    for name, value in own.items():
        if saved[name] != value:
            msg = f"The checkpoint was trained with {name}={saved[name]!r}, but the model has {value!r}."
            raise ValueError(msg)


def checked_class_names(class_names: Sequence[str], num_novel_classes: int) -> list[str]:
    """Check that there is one name per slot.

    Args:
        class_names: Name of each slot; slots that are the same class share a name.
        num_novel_classes: Number of slots.

    Returns:
        The names as a list.

    Raises:
        ValueError: If there are more or fewer names than slots, or one is empty or holds ``;``.
    """
    names = list(class_names)
    if isinstance(class_names, str) or len(names) != num_novel_classes or not all(names):
        msg = f"`class_names` must hold {num_novel_classes} names that aren't empty, one per slot, got {class_names!r}."
        raise ValueError(msg)
    if any(CLASS_SEPARATOR in name for name in names):
        msg = f"`class_names` must not hold {CLASS_SEPARATOR!r}, which parts names in tables, got {class_names!r}."
        raise ValueError(msg)
    return names


def write_class_names(file: str | Path, class_names: Sequence[str]) -> bool:
    """Put class names into a checkpoint file; a reader never sees a half-written one.

    Args:
        file: Checkpoint of AnomalyNcd.
        class_names: Name of each slot.

    Returns:
        Whether the file was written; not where it has these names already.

    Raises:
        ValueError: If it is no checkpoint of AnomalyNcd or the names don't fit its slots.
    """
    file = Path(file)
    with anomalib_safe_globals():
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    saved = own_part(checkpoint)
    names = checked_class_names(class_names, saved["num_novel_classes"])
    if saved.get("class_names") == names:
        return False
    saved["class_names"] = names
    unfinished = file.with_name(f".{file.name}.unfinished")
    torch.save(checkpoint, unfinished)
    unfinished.replace(file)
    return True


def save_model(model: LightningModule, file: str | Path) -> None:
    """Write a checkpoint without a training run; a reader never sees a half-written one.

    Args:
        model: Model that can predict as it is; any that ``load_from_checkpoint`` can build again.
        file: Target; its folder must exist.
    """
    file = Path(file)
    unfinished = file.with_name(f".{file.name}.unfinished")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=file.parent,
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(unfinished, weights_only=True)
    unfinished.replace(file)
