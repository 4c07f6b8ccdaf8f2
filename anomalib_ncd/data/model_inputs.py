# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a model asks of the regions that it is given."""

from __future__ import annotations

from dataclasses import dataclass

from anomalib_ncd.regions.settings import RegionSettings


@dataclass(frozen=True)
class ModelInputs:
    """How a model takes regions; it says so to a datamodule before that makes any.

    Attributes:
        image_size: Side of a view in pixels.
        whole_images: Whether views of whole images are needed besides those of regions.
        score_range: Score range that a fitted model's regions were cut with; ``None`` for a model that is new.
        map_kind: What the maps of a fitted model's run hold; ``None`` for a model that is new.
        regions: How a fitted model's regions were cut; ``None`` for a model that is new.
    """

    image_size: int
    whole_images: bool = False
    score_range: tuple[float, float] | None = None
    regions: RegionSettings | None = None
    map_kind: str | None = None
