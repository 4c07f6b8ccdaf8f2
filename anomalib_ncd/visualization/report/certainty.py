# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How sure the class of each region is, and which class comes second."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.regions.classes.prediction import first_slots, named_probabilities
from anomalib_ncd.visualization.report.embedding import unit_rows

DOUBTFUL_SHARE = 0.1
CLOSE_SECOND = 0.5


@dataclass(frozen=True)
class Certainty:
    """Certainty of R regions. Classes go by the first slot of their name."""

    slot: np.ndarray  # (R,) int, class of the region
    runner_up: np.ndarray  # (R,) int, class that comes second; -1 where there is only one
    value: np.ndarray  # (R,) float, probability of the class
    lead: np.ndarray  # (R,) float, how far the second is behind; infinite where there is only one
    distance: np.ndarray  # (R,) float, of the feature to the mean of its class; 0 without features
    is_doubtful: np.ndarray  # (R,) bool, the tenth where the second class is closest, by less than 0.5


def region_certainty(batch: NcdBatch, class_names: Sequence[str]) -> Certainty:
    """Tell how sure the class of each region is."""
    if batch.region_class_probabilities is None or batch.region_pred_class_id is None:
        msg = "The batch holds no predictions; pass what Engine.predict returns."
        raise ValueError(msg)
    probabilities = named_probabilities(batch.region_class_probabilities.numpy(), class_names)
    slot = np.array(first_slots(class_names))[batch.region_pred_class_id.numpy()]
    slots = np.array(sorted(set(first_slots(class_names))))
    scores, rows, own = probabilities[:, slots], np.arange(len(slot)), np.searchsorted(slots, slot)
    value = scores[rows, own]
    scores[rows, own] = -np.inf
    lead = value - scores.max(axis=1, initial=-np.inf)
    runner_up = np.where(np.isfinite(lead), slots[scores.argmax(axis=1)] if len(rows) else slot, -1)
    closest = np.argsort(lead, kind="stable")[: math.ceil(DOUBTFUL_SHARE * len(lead))]
    is_doubtful = np.isin(rows, closest) & (lead < CLOSE_SECOND)
    return Certainty(slot, runner_up, value, lead, _distances(batch, slot), is_doubtful)


def _distances(batch: NcdBatch, slot: np.ndarray) -> np.ndarray:
    """Distance ``(R,)`` of each region's feature to the mean of its class."""
    if batch.region_feature is None:
        return np.zeros(len(slot))
    features = unit_rows(batch.region_feature.to(torch.float32).numpy())
    distances = np.zeros(len(slot))
    for one in set(slot.tolist()):
        members = features[slot == one]
        distances[slot == one] = np.linalg.norm(members - members.mean(axis=0), axis=1)
    return distances
