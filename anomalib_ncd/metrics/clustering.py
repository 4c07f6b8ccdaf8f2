# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Clustering scores as anomalib metrics.

They take class ids from a batch's ``pred_class_id`` and ``class_id`` unless told otherwise; samples whose ``class_id``
is below 0 have no label and are left out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from anomalib.metrics import AnomalibMetric, Evaluator
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from anomalib_ncd.metrics.discovery import ari, check_labels, clustering_accuracy, labelled, matched_macro_f1, nmi

LEVELS = {"image_": ("pred_class_id", "class_id"), "region_": ("region_pred_class_id", "region_class_id")}


class _ClusteringMetric(Metric):
    """Gathers class ids, over batches and processes; subclasses say how the labelled ones are scored."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    default_fields = ("pred_class_id", "class_id")

    score: Callable[[np.ndarray, np.ndarray], float]
    preds: list[torch.Tensor]
    target: list[torch.Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add predicted and true class ids, each ``(N,)`` integer."""
        check_labels(preds.detach().cpu().numpy(), target.cpu().numpy())
        self.preds.append(preds.detach().long())
        self.target.append(target.detach().long())

    def compute(self) -> torch.Tensor:
        """Score what was gathered; NaN where nothing is labelled."""
        # After a reduction over processes the states are tensors, else lists.
        if not len(self.preds):
            return torch.tensor(float("nan"), device=self.device)
        preds, target = labelled(dim_zero_cat(self.preds).cpu().numpy(), dim_zero_cat(self.target).cpu().numpy())
        return torch.tensor(self.score(preds, target), device=self.device)


class NMI(AnomalibMetric, _ClusteringMetric):  # type: ignore[misc]
    """Normalised mutual information between discovered and true classes, from 0 to 1.

    Example:
        >>> from types import SimpleNamespace
        >>> metric = NMI(prefix="image_")
        >>> metric.update(SimpleNamespace(pred_class_id=torch.tensor([3, 3, 5]), class_id=torch.tensor([1, 1, 0])))
        >>> metric.name, metric.compute()
        ('image_NMI', tensor(1.))
    """

    score = staticmethod(nmi)


class ARI(AnomalibMetric, _ClusteringMetric):  # type: ignore[misc]
    """Adjusted Rand index between discovered and true classes; 1 at best, 0 for chance. Used as :class:`NMI`."""

    score = staticmethod(ari)


class ClusterAccuracy(AnomalibMetric, _ClusteringMetric):  # type: ignore[misc]
    """Accuracy after Hungarian matching of discovered with true classes, from 0 to 1. Used as :class:`NMI`."""

    score = staticmethod(clustering_accuracy)


class ClusterMacroF1(AnomalibMetric, _ClusteringMetric):  # type: ignore[misc]
    """Mean over true classes of F1 after Hungarian matching, from 0 to 1. Used as :class:`NMI`."""

    score = staticmethod(matched_macro_f1)


def build_evaluator() -> Evaluator:
    """Make an evaluator with NMI, ARI, accuracy and macro-F1 of images and of regions, for batches with labels."""
    return Evaluator(
        test_metrics=[
            metric(fields=fields, prefix=prefix, strict=False)
            for prefix, fields in LEVELS.items()
            for metric in (NMI, ARI, ClusterAccuracy, ClusterMacroF1)
        ]
    )
