# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How sure the class of each region is, and which class comes second."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.regions.classes.prediction import first_slots, named_probabilities
from anomalib_ncd.visualization.report.embedding import unit_rows

HARD_PROBABILITY = 0.9999
LOW_CONFIDENCE = 0.5
CLOSE_SECOND = 0.2
LOW_CLOSENESS = 0.05


@dataclass(frozen=True)
class Certainty:
    """Certainty of R regions. Classes go by the first slot of their name.

    ``value`` is the probability of the class, or, where each is 0 or 1, how much nearer the feature is to the mean of
    its own class than to the next (simplified silhouette).
    """

    slot: np.ndarray  # (R,) int, class of the region
    runner_up: np.ndarray  # (R,) int, class that comes second; -1 where there is only one
    value: np.ndarray  # (R,) float, 0 to 1, or -1 to 1
    distance: np.ndarray  # (R,) float, of the feature to the mean of its class; 0 without features
    is_doubtful: np.ndarray  # (R,) bool
    is_probability: bool  # whether `value` is one


def region_certainty(batch: NcdBatch, class_names: Sequence[str]) -> Certainty:
    """Tell how sure the class of each region is.

    With probabilities a region is doubtful below 0.5, or with a second class less than 0.2 behind. Where each of them
    is 0 or 1, a region is doubtful that is hardly nearer to its own class than to the next.
    """
    if batch.region_class_probabilities is None or batch.region_pred_class_id is None:
        msg = "The batch holds no predictions; pass what Engine.predict returns."
        raise ValueError(msg)
    probabilities = named_probabilities(batch.region_class_probabilities.numpy(), class_names)
    slot = np.array(first_slots(class_names))[batch.region_pred_class_id.numpy()]
    slots = np.array(sorted(set(first_slots(class_names))))
    is_hard = len(slot) > 0 and bool((probabilities.max(axis=1) > HARD_PROBABILITY).all())
    distances = _distances(batch, slot, slots)
    rows, own = np.arange(len(slot)), np.searchsorted(slots, slot)
    own_distance = distances[rows, own]
    if is_hard and batch.region_feature is not None:
        scores = -distances
    else:
        scores, is_hard = probabilities[:, slots], False
    best = scores[rows, own]
    scores[rows, own] = -np.inf
    second = scores.max(axis=1, initial=-np.inf)
    has_second = np.isfinite(second)
    runner_up = np.where(has_second, slots[scores.argmax(axis=1)] if len(rows) else slot, -1)
    if is_hard:
        rival = np.where(has_second, -second, 1.0)  # distances again
        value = np.where(has_second, (rival + best) / np.maximum(np.maximum(-best, rival), 1e-12), 1.0)
        is_doubtful = has_second & (value < LOW_CLOSENESS)
    else:
        value = best
        is_doubtful = has_second & ((value < LOW_CONFIDENCE) | (value - second < CLOSE_SECOND))
    return Certainty(slot, runner_up, value, own_distance, is_doubtful, is_probability=not is_hard)


def _distances(batch: NcdBatch, slot: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Distance ``(R, C)`` of each region's feature to the mean of each class; infinite to classes without regions."""
    if batch.region_feature is None:
        return np.zeros((len(slot), len(slots)))
    features = unit_rows(batch.region_feature.to(torch.float32).numpy())
    distances = np.full((len(slot), len(slots)), np.inf)
    for column, class_slot in enumerate(slots):
        members = features[slot == class_slot]
        if len(members):
            distances[:, column] = np.linalg.norm(features - members.mean(axis=0), axis=1)
    return distances
