# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The score range of a set of anomaly maps, gathered batch by batch."""

from collections.abc import Iterator
from copy import copy
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_ncd.regions.mebin import range_of_peaks
from anomalib_ncd.regions.robust_range import hot_maps


class MapExtremes(Metric):
    """Gathers the highest and the lowest value of each anomaly map, over batches and processes."""

    full_state_update = False
    extremes: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("extremes", default=[], dist_reduce_fx="cat")

    def update(self, anomaly_map: torch.Tensor) -> None:
        """Add maps of shape ``(B, H, W)`` or ``(B, 1, H, W)``."""
        values = anomaly_map.detach().as_subclass(torch.Tensor).flatten(1)
        self.extremes.append(torch.stack([values.amax(1), values.amin(1)], dim=1))

    def compute(self) -> torch.Tensor:
        """Return ``(N, 2)``, highest and lowest value of each map."""
        return dim_zero_cat(self.extremes)


def range_of_extremes(extremes: torch.Tensor, robust: bool = False) -> tuple[float, float] | None:
    """Find the score range of a set of maps from their highest and lowest values ``(N, 2)``.

    It is the range of :func:`~anomalib_ncd.regions.mebin.fit_score_range`. Maps with NaN or infinity are left out, and
    with ``robust`` those with peaks far above all others. ``None`` where there is no map, or all are one constant.
    """
    values = extremes.cpu().double().numpy()
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return None
    if robust:
        values = np.delete(values, hot_maps(values[:, 0].tolist(), values[:, 1].tolist()), axis=0)
    low, high = range_of_peaks(values.tolist())
    return (low, high) if low < high else None


def first_pass(
    trainer: Trainer, pl_module: LightningModule, stage: Literal["predict", "test"]
) -> Iterator[torch.Tensor]:
    """Run a detector over the set that is about to be predicted, and yield its own anomaly maps, batch by batch."""
    step = getattr(trainer.strategy, f"{stage}_step")
    prepare = getattr(getattr(pl_module, "pre_processor", None), f"on_{stage}_batch_start", None)
    for batch, batch_idx, dataloader_idx in _batches(trainer, stage):
        moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch), None, dataloader_idx)
        if prepare is not None:
            prepare(trainer, pl_module, moved, batch_idx)
        outputs = step(moved, batch_idx)
        if outputs.anomaly_map is not None:
            yield outputs.anomaly_map


def _batches(trainer: Trainer, stage: Literal["predict", "test"]) -> Iterator[tuple[Any, int, int]]:
    """Yield the batches of all loaders of a loop, within its limits."""
    loaders = CombinedLoader(getattr(trainer, f"{stage}_dataloaders"), "sequential").flattened
    limits = getattr(trainer, f"num_{stage}_batches")
    for dataloader_idx, (loader, limit) in enumerate(zip(loaders, limits, strict=True)):
        for batch_idx, batch in enumerate(_own_copy(loader)):
            if batch_idx >= limit:
                break
            yield batch, batch_idx, dataloader_idx


def _own_copy(loader: Any) -> Any:
    """Copy a loader, so that a pass over it leaves the iterator alone that the loop has made already.

    Persistent workers have one iterator, and so has the batch sampler that Lightning wraps around its own.
    """
    if not isinstance(loader, DataLoader):
        return loader
    own = copy(loader)
    # Set past `DataLoader.__setattr__`, which refuses a new batch sampler.
    own.__dict__.update(batch_sampler=copy(loader.batch_sampler), _iterator=None)
    return own
