# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.region_votes import predict_images
from anomalib_ncd.regions.classes.merging import region_weights
from anomalib_ncd.regions.classes.rejection import is_image_unknown


def build_batch(areas, image_index):
    count = max(image_index) + 1
    return NcdBatch(
        image_path=[f"{number}.png" for number in range(count)],
        image_size=torch.full((count, 2), 64),
        image=None,
        region_mask=None,
        region_image_index=torch.tensor(image_index),
        region_box_xyxy=torch.zeros(len(areas), 4),
        region_score=torch.zeros(len(areas)),
        region_area=torch.tensor(areas),
    )


def test_the_regions_that_decide_an_image_make_it_unknown():
    areas, image_index = [400, 100, 100, 400, 9], [0, 0, 1, 1, 2]
    unknown = torch.tensor([True, False, True, False, True])
    by_region = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    batch = predict_images(build_batch(areas, image_index), by_region, unknown, torch.full((3,), 10.0))
    assert batch.unknown.tolist() == [True, False, True]
    assert torch.equal(batch.region_unknown, unknown)
    assert batch.pred_class_id.tolist() == [0, 1, 0]
    torch.testing.assert_close(batch.class_probabilities.sum(dim=1), torch.ones(3))
    assert batch.class_probabilities.shape == (3, 2)


@pytest.mark.parametrize("seed", range(5))
def test_it_says_of_an_image_what_the_rule_for_one_image_says(seed):
    generator = torch.Generator().manual_seed(seed)
    areas = torch.randint(1, 900, (6,), generator=generator)
    unknown = torch.rand(6, generator=generator) < 0.5
    batch = build_batch(areas.tolist(), [0] * 6)
    predicted = predict_images(batch, torch.full((6, 2), 0.5), unknown, torch.tensor([12.0]))
    assert predicted.unknown.item() == is_image_unknown(unknown.numpy(), region_weights(areas.numpy(), 12.0))
