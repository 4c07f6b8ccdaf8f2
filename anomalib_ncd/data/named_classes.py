# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Classes that share a name are one class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anomalib_ncd.regions.classes.slots import first_slots


def named_probabilities(probabilities: Tensor, class_names: Sequence[str]) -> Tensor:
    """Add up the probabilities of slots that share a name.

    Args:
        probabilities: ``(N, K)`` float.
        class_names: Name of each of the K slots.

    Returns:
        ``(N, K)`` of the same type: the sum stands at the first slot of a name, 0 at its other slots.

    Raises:
        ValueError: If there aren't as many names as slots.

    Example:
        >>> named_probabilities(torch.tensor([[0.25, 0.5, 0.25]]), ["scratch", "dent", "scratch"])
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        msg = f"`class_names` must name the K slots of (N, K), got {len(class_names)} for {tuple(probabilities.shape)}."
        raise ValueError(msg)
    first = torch.tensor(first_slots(class_names), device=probabilities.device, dtype=torch.long)
    return torch.zeros_like(probabilities).index_add(1, first, probabilities)


def predict_classes(probabilities: Tensor, class_names: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
    """Choose the most probable class; slots of one name stand together.

    Args:
        probabilities: ``(N, K)`` float.
        class_names: Name of each of the K slots. Defaults to ``None``: each slot is a class of its own.

    Returns:
        ``(N,)`` long, the slot: the most probable one among those of the most probable name; and ``(N,)``, the
        probability of that name.

    Raises:
        ValueError: If there aren't as many names as slots.

    Example:
        >>> predict_classes(torch.tensor([[0.4, 0.25, 0.35]]), ["dent", "scratch", "scratch"])
        (tensor([2]), tensor([0.6000]))
    """
    if class_names is None:
        return probabilities.argmax(dim=1), probabilities.amax(dim=1)
    by_name = named_probabilities(probabilities, class_names)
    first = torch.tensor(first_slots(class_names), device=probabilities.device)
    best = by_name.argmax(dim=1)
    other_name = first[None] != best[:, None]
    return probabilities.masked_fill(other_name, -1).argmax(dim=1), by_name.amax(dim=1)
