# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The device that a user asks for, or a message where this machine has none such."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from anomalib_ncd.models.checkpoints import QUIET_TRAINER


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning takes for an accelerator, such as ``auto``, ``gpu`` or ``mps``; or ``ValueError``."""
    try:
        trainer = Trainer(accelerator=accelerator, devices=1, **QUIET_TRAINER)
    except (MisconfigurationException, ImportError, RuntimeError, ValueError) as error:
        msg = f"There is no accelerator {accelerator!r} here ({error}). Choose 'cpu' or 'auto'."
        raise ValueError(msg) from error
    return trainer.strategy.root_device


def checked_device(name: str) -> torch.device:
    """A device of PyTorch, such as ``cpu`` or ``cuda:1``, that is there; or ``ValueError``."""
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        msg = f"There is no device {name!r} here ({error}). Choose 'cpu'."
        raise ValueError(msg) from error
