# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the settings of AnomalyNcd ask of each other."""

from __future__ import annotations

from typing import Literal


def check_settings(
    num_novel_classes: int | Literal["auto"],
    num_cached_views: int | None,
    trainable_blocks: int,
    mask_layers: int,
    prototypes: str,
    class_sizes: str,
) -> None:
    """Refuse settings that don't go together; they are the model's of the same names.

    Args:
        num_novel_classes: Number of classes to tell apart, or ``"auto"``.
        num_cached_views: Views per region that are kept, or ``None``.
        trainable_blocks: Number of last blocks that are trained.
        mask_layers: Number of last blocks that are guided by the mask.
        prototypes: Where the novel classes start.
        class_sizes: What the mean-entropy term pulls to.

    Raises:
        ValueError: If there is no class, views are kept that training or the mask would change, or sizes are asked for
            that nothing gives.
    """
    if num_novel_classes != "auto" and (not isinstance(num_novel_classes, int) or num_novel_classes < 1):
        msg = f"`num_novel_classes` must be at least 1 (normal counts as one) or 'auto', got {num_novel_classes!r}."
        raise ValueError(msg)
    if num_cached_views is not None and trainable_blocks != 1:
        msg = f"`num_cached_views` needs `trainable_blocks=1`, got {trainable_blocks}; set `num_cached_views=None`."
        raise ValueError(msg)
    if num_cached_views is not None and mask_layers < 1:
        msg = f"`num_cached_views` keeps what the mask shows and needs `mask_layers` of 1 or more, got {mask_layers}."
        raise ValueError(msg)
    if prototypes not in {"clusters", "compared", "random"}:
        msg = f"`prototypes` must be 'clusters', 'compared' or 'random', got {prototypes!r}."
        raise ValueError(msg)
    if class_sizes not in {"equal", "clusters"}:
        msg = f"`class_sizes` must be 'equal' or 'clusters', got {class_sizes!r}."
        raise ValueError(msg)
    if class_sizes == "clusters" and prototypes == "random":
        msg = f"`class_sizes='clusters'` needs prototypes from clusters, got `prototypes={prototypes!r}`."
        raise ValueError(msg)
