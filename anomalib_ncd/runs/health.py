# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The health of a run: what its predictions tell about themselves, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anomalib_ncd.metrics.health import RunEvidence, health_figures, health_report
from anomalib_ncd.regions.classes.slots import first_slots
from anomalib_ncd.results.run_results import RunResults


def run_health(results: RunResults, class_names: Sequence[str]) -> dict[str, Any]:
    """Measure and judge a run: the part ``health`` of ``metrics.json``.

    Args:
        results: Predictions under their names, see :meth:`RunResults.named`.
        class_names: Name of each slot; slots of one name are one class.

    Raises:
        ValueError: If the results have no predictions.
    """
    return health_report(health_figures(run_evidence(results, class_names)))


def run_evidence(results: RunResults, class_names: Sequence[str]) -> RunEvidence:
    """Gather what the figures are computed from."""
    batch = results.batch
    if batch.region_pred_class_id is None or batch.region_pred_class_score is None:
        msg = "The batch holds no predictions; pass what Engine.predict returns."
        raise ValueError(msg)
    first = first_slots(class_names)
    # Classes without gaps: 0 is normal where there is such a slot.
    number = {slot: index for index, slot in enumerate(sorted(set(first)))}
    numbers = np.array([number[slot] for slot in first])
    preds = numbers[batch.region_pred_class_id.numpy()]
    features = batch.region_reference if batch.region_reference is not None else batch.region_feature
    heads = batch.region_head_class_id
    return RunEvidence(
        preds=preds,
        num_classes=len(number),
        # As results.npz keeps them, so that the figures are the same when they are computed from it.
        features=None if features is None else features.half().float().numpy(),
        scores=batch.region_score.float().numpy(),
        areas=batch.region_area.numpy(),
        confidences=batch.region_pred_class_score.float().numpy(),
        is_normal=None if results.normal_slot is None else preds == numbers[results.normal_slot],
        head_preds=None if heads is None else numbers[heads.T.numpy()],
    )
