# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What metrics share that can only be computed from all samples together."""

from typing import Any

import torch
from torchmetrics import Metric


class GatheringMetric(Metric):
    """Gathers predictions and targets, over batches and processes; subclasses check and score them."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    preds: list[torch.Tensor]
    target: list[torch.Tensor]

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")
