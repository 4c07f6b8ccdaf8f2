# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From what is said of regions to what is said of their images, in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.region_merging import merge_regions
from anomalib_ncd.regions.classes.rejection import UNKNOWN_SHARE


def predict_images(
    batch: NcdBatch,
    by_region: torch.Tensor,
    region_unknown: torch.Tensor,
    temperatures: torch.Tensor,
    class_names: Sequence[str] | None = None,
) -> NcdBatch:
    """Fill in the predictions of regions and, by region merging, those of their images.

    An image is unknown where its unknown regions have more than half of the weight in region merging, that is, where
    the regions that decide its class are.

    Args:
        batch: Images with R regions; changed in place.
        by_region: ``(R, K)`` float, class probabilities.
        region_unknown: ``(R,)`` bool, regions that are like none of the run.
        temperatures: ``(B,)`` float, T of region merging.
        class_names: Name of each slot; slots of one name are one class.

    Returns:
        The batch.
    """
    votes = torch.cat([by_region, region_unknown.to(by_region.dtype)[:, None]], dim=1)
    merged = merge_regions(
        votes,
        batch.region_area,
        batch.region_image_index,
        temperatures,
        num_images=batch.batch_size,
    )
    batch.update(unknown=merged[:, -1] > UNKNOWN_SHARE, region_unknown=region_unknown)
    return batch.with_predictions(by_region, merged[:, :-1], class_names)
