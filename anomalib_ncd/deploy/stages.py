# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The steps between detector and encoder, and after it: regions out of a map, a class out of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from anomalib_ncd.deploy.packing.manifest import Manifest
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.crops import Region
from anomalib_ncd.regions.views import eval_view, whole_view


def views_of(regions: Sequence[Region], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Views ``(R, 3, S, S)`` uint8 and masks ``(R, 1, S, S)`` float32 of regions."""
    views = [eval_view(region.image, region.mask, image_size) for region in regions]
    return np.stack([view for view, _ in views]), np.stack([mask for _, mask in views])


def whole_views_of(images: Sequence[np.ndarray], image_size: int) -> np.ndarray:
    """Views ``(I, 3, S, S)`` uint8 of the whole images."""
    return np.stack([whole_view(image, image_size) for image in images])


def classify_image(
    size_hw: tuple[int, int],
    regions: Sequence[Region],
    outputs: Mapping[str, np.ndarray],
    manifest: Manifest,
    path: Path | None = None,
    *,
    keep_masks: bool = True,
) -> ImageResult:
    """Predict an image from what the encoder says of its regions.

    Args:
        size_hw: Height and width of the image.
        regions: Its R regions; there may be none.
        outputs: Of the encoder, for these regions, see :class:`~anomalib_ncd.deploy.encoders.Encoder`.
        manifest: Class names, temperature and threshold.
        path: File of the image; ``None`` for an array.
        keep_masks: Keep masks and features of regions in the result.
    """
    threshold = -np.inf if manifest.rejection is None else manifest.rejection.threshold
    result = manifest.region_merging.predict(
        outputs["class_probabilities"],
        np.array([region.box_xyxy for region in regions]),
        np.array([region.area for region in regions]),
        np.array([region.score for region in regions]),
        size_hw,
        outputs["neighbour_similarity"] < threshold,
        None if path is None else str(path),
    )
    kept = [
        replace(found, neighbour_similarity=float(similarity))
        for found, similarity in zip(result.regions, outputs["neighbour_similarity"], strict=True)
    ]
    if keep_masks:
        kept = [
            replace(found, mask=region.mask, feature=feature)
            for found, region, feature in zip(kept, regions, outputs["region_feature"], strict=True)
        ]
    return replace(result, regions=tuple(kept))
