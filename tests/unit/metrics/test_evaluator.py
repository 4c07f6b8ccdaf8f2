# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import pytest
import torch

from anomalib_ncd.metrics.evaluator import build_evaluator

NAMES = ["NMI", "ARI", "ClusterAccuracy", "ClusterMacroF1"]


def test_images_and_regions_are_scored():
    evaluator = build_evaluator()
    assert [metric.name for metric in evaluator.test_metrics] == [
        f"{p}{n}" for p in ("image_", "region_") for n in NAMES
    ]
    assert len(evaluator.val_metrics) == 0
    batch = SimpleNamespace(
        pred_class_id=torch.tensor([2, 2, 0, 0]),
        class_id=torch.tensor([0, 0, 1, 1]),
        region_pred_class_id=torch.tensor([0, 0, 0, 1]),
        region_class_id=torch.tensor([0, 0, 1, 1]),
    )
    for metric in evaluator.test_metrics:
        metric.update(batch)
    scores = {metric.name: float(metric.compute()) for metric in evaluator.test_metrics}
    assert [scores[f"image_{name}"] for name in NAMES] == pytest.approx([1.0] * 4)
    assert scores["region_ClusterAccuracy"] == pytest.approx(0.75)
