# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.results.run_results import RunResults


def make_results(
    by_region: Sequence[Sequence[float]],
    image_of: Sequence[int],
    *,
    features: np.ndarray | None = None,
    labels: Sequence[int] | None = None,
    has_normal_slot: bool = True,
    keys: Sequence[str] | None = None,
) -> RunResults:
    """Results with given probabilities; all regions weigh the same."""
    probabilities, index = torch.tensor(by_region, dtype=torch.float32), torch.tensor(image_of)
    num_images, count = int(index.max()) + 1 if len(index) else 1, len(index)
    names = list(keys or (f"part/{image}" for image in range(num_images)))
    batch = NcdBatch(
        image_path=[f"/nowhere/{name}.png" for name in names],
        image_size=torch.full((num_images, 2), 64),
        image=None,
        region_mask=None,
        region_image_index=index,
        region_box_xyxy=torch.tensor([[8.0, 8, 40, 40]]).repeat(count, 1),
        region_score=torch.linspace(0, 1, count),
        region_area=torch.full((count,), 30),
        class_id=None if labels is None else torch.tensor(labels),
        region_feature=None if features is None else torch.tensor(features, dtype=torch.float32),
    )
    first = 0 if has_normal_slot else 1
    slots = [f"class_{number + first}" for number in range(probabilities.shape[1])]
    if has_normal_slot:
        slots[0] = "normal"
    normal_slot = 0 if has_normal_slot else None
    batch.with_predictions(probabilities, RegionMerging(tuple(slots), normal_slot))
    position = np.random.default_rng(0).uniform(-1, 1, (count, 2)).astype(np.float32)
    label_names = [] if labels is None else ["good", "dent", "scratch"]
    return RunResults(batch, names, slots, "regions", position, label_names, normal_slot)


@pytest.fixture
def results_of() -> Callable[..., RunResults]:
    """Makes results by hand."""
    return make_results
