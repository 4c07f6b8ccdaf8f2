# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The metrics of the test pass."""

from anomalib.metrics import AnomalibMetric, Evaluator

from anomalib_ncd.metrics.clustering import ARI, NMI, ClusterAccuracy, ClusterMacroF1

LEVELS = {
    "image_": ("pred_class_id", "class_id"),
    "region_": ("region_pred_class_id", "region_class_id"),
}


def build_evaluator() -> Evaluator:
    """Make an evaluator with NMI, ARI, accuracy and macro-F1 of images and of regions, for batches with labels.

    Example:
        >>> [metric.name for metric in build_evaluator().test_metrics][:2]
        ['image_NMI', 'image_ARI']
    """
    metrics: list[AnomalibMetric] = [
        metric(fields=fields, prefix=prefix, strict=False)
        for prefix, fields in LEVELS.items()
        for metric in (NMI, ARI, ClusterAccuracy, ClusterMacroF1)
    ]
    return Evaluator(test_metrics=metrics)
