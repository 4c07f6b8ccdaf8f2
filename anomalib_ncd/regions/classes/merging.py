# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Class probabilities: of slots of one name, and of the regions of an image."""

import math
from collections.abc import Sequence

import numpy as np

LOGIT_TEMPERATURE = 0.1  # of the paper: what cosines to prototypes are divided by


def first_slots(class_names: Sequence[str]) -> list[int]:
    """Give each slot the first slot of its name."""
    first: dict[str, int] = {}
    return [first.setdefault(name, slot) for slot, name in enumerate(class_names)]


def named_probabilities(probabilities: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Add up probabilities ``(N, K)`` of slots that share a name: at the first slot of it, 0 at its others; float32."""
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


def novel_probabilities(logits: np.ndarray, num_base_classes: int) -> np.ndarray:
    """Probabilities of the novel classes, given that the class is one: of logits ``(..., C)``, base classes first.

    The softmax without its base columns, renormalised, is the softmax over the novel logits alone. Returns
    ``(..., C - num_base_classes)`` float32.

    Example:
        >>> novel_probabilities(np.array([9.0, 0.1, 0.1]), num_base_classes=1)
        array([0.5, 0.5], dtype=float32)
    """
    logits = np.asarray(logits, dtype=np.float32)
    if not 0 <= num_base_classes < (logits.shape[-1] if logits.ndim else 0):
        msg = (
            f"`num_base_classes` must be from 0 to C - 1 for `logits` of shape (..., C), got {num_base_classes} and "
            f"{logits.shape}; a head has an output for each base and each novel class."
        )
        raise ValueError(msg)
    scaled = logits[..., num_base_classes:] / np.float32(LOGIT_TEMPERATURE)
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def region_weights(areas: np.ndarray, temperature: float) -> np.ndarray:
    """Weight of each region of an image, ``(R,)`` float32: softmax of the root of its area over the temperature.

    The temperature is a side length in pixels: the higher, the less area matters; 100 in the paper for MVTec AD, 50 for
    MTD. ``ValueError`` if an area is negative or the temperature is not positive.
    """
    areas = np.asarray(areas, dtype=np.float32)
    if areas.ndim != 1 or (areas < 0).any():
        msg = f"`areas` must have shape (R,) and not be negative, got {areas}; count the pixels of each region's mask."
        raise ValueError(msg)
    if not temperature > 0:
        msg = f"`temperature` must be positive, got {temperature}; 50 to 100 are the paper's."
        raise ValueError(msg)
    scaled = np.sqrt(areas) / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(initial=0))
    return exponentials / exponentials.sum()


def merge_image(probabilities: np.ndarray, areas: np.ndarray, temperature: float) -> np.ndarray:
    """Merge ``(R, ...)`` of the regions of one image: their mean by :func:`region_weights`, float32; 0 if none."""
    probabilities = np.asarray(probabilities, dtype=np.float32)
    if not probabilities.ndim or len(probabilities) != len(areas):
        msg = f"`probabilities` must have shape (R, ...) for {len(areas)} areas, got {probabilities.shape}."
        raise ValueError(msg)
    return np.tensordot(region_weights(areas, temperature), probabilities, axes=1)


def merging_temperature_of(size_hw: tuple[int, int]) -> float:
    """Temperature of region merging that grows with the image: an eighth of the root of its area.

    The paper sets it by data set: 100 for MVTec AD, whose sides are around 900 pixels, and 50 for MTD, around 300. An
    eighth lies between the two.
    """
    return math.sqrt(size_hw[0] * size_hw[1]) / 8
