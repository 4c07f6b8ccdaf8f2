# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Slots that share a name are one class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def first_slots(class_names: Sequence[str]) -> list[int]:
    """Give each slot the first slot of its name.

    Example:
        >>> first_slots(["normal", "scratch", "dent", "scratch"])
        [0, 1, 2, 1]
    """
    first: dict[str, int] = {}
    return [first.setdefault(name, slot) for slot, name in enumerate(class_names)]


def named_probabilities(probabilities: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Add up probabilities ``(N, K)`` of slots that share a name: at the first slot of it, 0 at its others; float32.

    Example:
        >>> named_probabilities(np.array([[0.25, 0.5, 0.25]]), ["scratch", "dent", "scratch"])
        array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    probabilities = np.asarray(probabilities, dtype=np.float32)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        msg = f"`class_names` must name the K slots of (N, K), got {len(class_names)} for {probabilities.shape}."
        raise ValueError(msg)
    by_name = np.zeros_like(probabilities)
    for slot, target in enumerate(first_slots(class_names)):
        by_name[:, target] += probabilities[:, slot]
    return by_name


def choose_classes(probabilities: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Choose the most probable class out of ``(N, K)``; slots of one name stand together.

    Returns the slots ``(N,)`` int64, the most probable one of the most probable name each, and the probability ``(N,)``
    float32 of that name.

    Example:
        >>> slots, scores = choose_classes(np.array([[0.375, 0.25, 0.375]]), ["dent", "scratch", "scratch"])
        >>> slots.tolist(), scores.tolist()
        ([2], [0.625])
    """
    by_name = named_probabilities(probabilities, class_names)
    of_name = np.array(first_slots(class_names))[None] == by_name.argmax(axis=1)[:, None]
    return np.where(of_name, probabilities, -1).argmax(axis=1), by_name.max(axis=1)
