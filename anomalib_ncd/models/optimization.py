# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The paper's optimiser and learning rate (AnomalyNCD, Huang et al., CVPR 2025, implementation details)."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD

FINAL_LEARNING_RATE = 1e-3


def build_optimizer(
    parameters: Iterable[nn.Parameter], learning_rate: float = 0.003, momentum: float = 0.9, weight_decay: float = 5e-5
) -> SGD:
    """SGD without weight decay of vectors such as biases, and without frozen parameters; in one pass on a CPU."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    on_cpu = all(parameter.device.type == "cpu" for parameter in trainable)
    return SGD(groups, lr=learning_rate, momentum=momentum, fused=on_cpu or None)


def relative_learning_rate(epoch: int, num_epochs: int) -> float:
    """Learning rate of an epoch as a share of the initial one: a cosine from 1 to a thousandth, where it stays.

    A function of the epoch alone: torch's own cosine would take the old number of epochs from a checkpoint, and its
    rate would rise again when training goes on for longer.
    """
    progress = min(epoch / max(num_epochs, 1), 1.0)
    return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * (1 + math.cos(math.pi * progress)) / 2
