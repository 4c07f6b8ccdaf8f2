# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The backbone of a run that names none."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from anomalib_ncd.models.encoders.hub import is_cached
from anomalib_ncd.models.encoders.offline import OFFLINE_BACKBONE, WHEEL_MODULE

PAPER_BACKBONE = "vit_base_patch8_224.dino"

logger = logging.getLogger(__name__)


def choose_backbone(weights: str | Path | None = None, before: str | None = None) -> str:
    """Choose the paper's backbone where its weights are at hand, else the offline one where that is installed.

    A file of ``weights`` is taken for the paper's backbone; the backbone of the run ``before``, if any, is gone on
    with.
    """
    if before is not None:
        return before
    if weights is not None:
        return PAPER_BACKBONE
    if is_cached(PAPER_BACKBONE):
        logger.info("Backbone: the paper's %s, from timm's cache.", PAPER_BACKBONE)
        return PAPER_BACKBONE
    if find_spec(WHEEL_MODULE) is not None:
        logger.info(
            "Backbone: EfficientNet-Lite0 of the extra [offline], as the weights of the paper's %s are not in timm's "
            "cache; `--backbone %s` fetches them.",
            PAPER_BACKBONE,
            PAPER_BACKBONE,
        )
        return OFFLINE_BACKBONE
    logger.info("Backbone: the paper's %s, whose weights are fetched from timm's hub.", PAPER_BACKBONE)
    return PAPER_BACKBONE
