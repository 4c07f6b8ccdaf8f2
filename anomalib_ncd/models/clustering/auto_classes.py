# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The number of novel classes of a model: given, estimated from the regions, or taken from a checkpoint."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.models.clustering.number_of_classes import NumClassesEstimate, estimate_num_classes
from anomalib_ncd.models.known_regions import features_of, known_regions

if TYPE_CHECKING:
    from anomalib_ncd.models.lightning_model import AnomalyNcd

logger = logging.getLogger(__name__)

AUTO = "auto"


class AutoClassesMixin:
    """Holds the number of novel classes of ``AnomalyNcd`` and estimates it where it is ``"auto"``.

    Attributes:
        num_classes_estimate: The estimate and the curve behind it; ``None`` where the number was given, or is not known
            yet.
    """

    num_classes_estimate: NumClassesEstimate | None = None
    _asked_num_classes: int | Literal["auto"] = "auto"
    _num_novel_classes: int | None = None

    def ask_for_classes(self, num_novel_classes: int | Literal["auto"]) -> None:
        """Take over the constructor's argument."""
        self._asked_num_classes = num_novel_classes
        self._num_novel_classes = num_novel_classes if isinstance(num_novel_classes, int) else None

    @property
    def num_novel_classes(self) -> int:
        """Number of novel classes, *normal* included.

        Raises:
            ValueError: If it is to be estimated and no regions were seen yet.
        """
        if self._num_novel_classes is None:
            msg = (
                "`num_novel_classes` is 'auto' and not known yet: it is estimated when training or clustering begins. "
                "Do that, load a checkpoint, or give a number."
            )
            raise ValueError(msg)
        return self._num_novel_classes

    @property
    def knows_num_classes(self) -> bool:
        """Whether the number of novel classes was given, estimated or loaded."""
        return self._num_novel_classes is not None

    def take_estimate(self, estimate: NumClassesEstimate) -> None:
        """Go on with an estimated number of classes, and say so."""
        self._num_novel_classes, self.num_classes_estimate = estimate.count, estimate
        logger.info(
            "%d classes, normal included, were estimated from the regions (%d to %d are plausible); "
            "`num_novel_classes` sets another number.",
            estimate.count,
            estimate.low,
            estimate.high,
        )

    def take_saved_number(self, saved: dict[str, Any]) -> None:
        """Take over the number of a checkpoint where none was given.

        Args:
            saved: The model's own part of the checkpoint.
        """
        if self._asked_num_classes == AUTO:
            self._num_novel_classes = int(saved["num_novel_classes"])
        estimate = saved.get("num_classes_estimate")
        self.num_classes_estimate = None if estimate is None else NumClassesEstimate.from_plain(estimate)

    def plain_estimate(self) -> dict[str, Any] | None:
        """The estimate as plain data for checkpoints and files."""
        return None if self.num_classes_estimate is None else self.num_classes_estimate.plain()


def resolve_num_classes(model: AnomalyNcd, datamodule: NcdDataModule, device: torch.device | str = "cpu") -> None:
    """Estimate the number of classes of a model that doesn't know it; one pass over the regions, with progress.

    Of several processes the first one does it, and the others are told.

    Args:
        model: ``AnomalyNcd`` whose encoder is used as it is; moved to `device`.
        datamodule: Gives the regions.
        device: Where the features are computed.
    """
    if model.knows_num_classes:
        return
    datamodule.region_table()  # every process, since each waits for the first one to cut
    trainer = datamodule.trainer
    plain: dict[str, Any] = {}  # told by the first process
    if trainer is None or trainer.is_global_zero:
        features = frozen_features(model, datamodule, device)
        plain = estimate_num_classes(features, seed=datamodule.sampler_seed).plain()
    if trainer is not None:
        plain = trainer.strategy.broadcast(plain)
    model.take_estimate(NumClassesEstimate.from_plain(plain))


def frozen_features(model: AnomalyNcd, datamodule: NcdDataModule, device: torch.device | str) -> np.ndarray:
    """Mask-guided features ``(R, D)`` float32 of all regions; neither the model nor the random state changes."""
    was_training = model.training
    encoded = known_regions(model.eval().to(device), datamodule)
    model.train(was_training)
    return features_of(encoded)[0].numpy()
