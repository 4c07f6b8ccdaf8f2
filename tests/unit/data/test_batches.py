# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch, RegionViewBatch
from anomalib_ncd.regions.classes.prediction import RegionMerging

MERGING = RegionMerging(("normal", "dent"), 0)


def image_item(number, num_regions, *, labelled=True):
    item = NcdBatch(
        image_path=[f"{number}.png"],
        image_size=torch.tensor([[60, 80 + number]]),
        image=torch.full((num_regions, 3, 8, 8), number, dtype=torch.uint8),
        region_mask=torch.ones(num_regions, 1, 8, 8),
        region_image_index=torch.zeros(num_regions, dtype=torch.long),
        region_box_xyxy=torch.zeros(num_regions, 4),
        region_score=torch.full((num_regions,), number / 10),
        region_area=torch.arange(num_regions),
    )
    if labelled:
        item.class_id = torch.tensor([number])
        item.region_class_id = item.class_id.repeat(num_regions)
    return item


def view_item(index, *, tokens=False):
    item = RegionViewBatch(torch.tensor([index]), torch.tensor([2]), torch.tensor([True]), torch.tensor([0.5]))
    if tokens:
        item.tokens = torch.full((2, 1, 5, 4), float(index))
        item.attended = torch.ones(2, 1, 5, dtype=torch.bool)
    else:
        item.image = torch.full((2, 1, 3, 8, 8), index, dtype=torch.uint8)
        item.mask = torch.ones(2, 1, 1, 8, 8)
    return item


def test_images_are_joined_with_their_regions():
    batch = NcdBatch.collate([image_item(0, 2), image_item(1, 1), image_item(2, 3)])
    assert len(batch) == batch.batch_size == 3
    assert batch.image_path == ["0.png", "1.png", "2.png"]
    assert batch.image_size.tolist() == [[60, 80], [60, 81], [60, 82]]
    assert batch.region_image_index.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.image[:, 0, 0, 0].tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.region_area.tolist() == [0, 1, 0, 0, 1, 2]
    assert batch.class_id.tolist() == [0, 1, 2]
    assert batch.region_class_id.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.pred_class_id is None


def test_labels_are_joined_only_where_all_have_them():
    assert NcdBatch.collate([image_item(0, 1), image_item(1, 1, labelled=False)]).class_id is None


def test_batches_of_several_images_are_joined():
    first = NcdBatch.collate([image_item(0, 2), image_item(1, 1)])
    joined = NcdBatch.collate([first, image_item(2, 3), NcdBatch.collate([image_item(3, 1)])])
    assert joined.image_path == ["0.png", "1.png", "2.png", "3.png"]
    assert joined.region_image_index.tolist() == [0, 0, 1, 2, 2, 2, 3]


def test_classes_of_one_name_are_chosen_together():
    batch = NcdBatch.collate([image_item(0, 1), image_item(1, 1)])
    by_region = torch.tensor([[0.4, 0.3, 0.3], [0.7, 0.3, 0.0]])
    batch.with_predictions(by_region, RegionMerging(("normal", "dent", "dent"), 0))
    assert batch.region_pred_class_id.tolist() == [1, 0]
    torch.testing.assert_close(batch.region_pred_class_score, torch.tensor([0.6, 0.7]))
    assert batch.pred_class_id.tolist() == [1, 0]
    assert torch.equal(batch.region_class_probabilities, by_region)


def test_update_sets_fields_in_place():
    batch = image_item(0, 1)
    assert batch.update(pred_class_id=torch.tensor([1])) is batch
    assert batch.pred_class_id.tolist() == [1]


def test_update_refuses_unknown_fields():
    with pytest.raises(AttributeError, match=r"no field 'pred_label'.*pred_class_id"):
        image_item(0, 1).update(pred_label=1)


def test_predictions_are_the_most_probable_classes():
    batch = NcdBatch.collate([image_item(0, 1), image_item(1, 1)])
    by_region = torch.tensor([[0.2, 0.8], [0.7, 0.3]])
    assert batch.with_predictions(by_region, MERGING) is batch
    assert batch.pred_class_id.tolist() == [1, 0]
    assert batch.region_pred_class_id.tolist() == [1, 0]
    torch.testing.assert_close(batch.pred_class_score, torch.tensor([0.8, 0.7]))
    torch.testing.assert_close(batch.region_pred_class_score, torch.tensor([0.8, 0.7]))
    torch.testing.assert_close(batch.class_probabilities, by_region)
    assert batch.region_class_probabilities is by_region
    assert batch.unknown.tolist() == [False, False]


def test_regions_in_any_order_belong_to_their_images():
    batch = NcdBatch.collate([image_item(0, 1), image_item(1, 2)])
    batch.update(region_image_index=torch.tensor([1, 0, 1]), region_area=torch.tensor([9, 400, 9]))
    by_region = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    batch.with_predictions(by_region, MERGING, torch.tensor([True, False, True]))
    assert batch.region_pred_class_id.tolist() == [0, 1, 0]
    torch.testing.assert_close(batch.region_pred_class_score, torch.tensor([0.9, 0.8, 0.6]))
    torch.testing.assert_close(batch.class_probabilities, torch.tensor([[0.2, 0.8], [0.75, 0.25]]))
    assert batch.unknown.tolist() == [False, True]
    first, second = batch.image_results(RegionMerging(("good part", "dent"), 0))
    assert (first.image, first.size_hw, first.class_name, len(first.regions)) == ("0.png", (60, 80), "dent", 1)
    assert (second.class_name, second.is_unknown, second.is_normal) == ("good part", True, False)


def test_an_image_without_region_is_predicted_as_well():
    batch = NcdBatch.collate([image_item(0, 0), image_item(1, 1)])
    batch.with_predictions(torch.tensor([[0.2, 0.8]]), MERGING)
    assert batch.pred_class_id.tolist() == [0, 1]
    assert batch.pred_class_score.tolist() == [1, pytest.approx(0.8)]
    batch.with_predictions(torch.tensor([[0.2, 0.8]]), RegionMerging(("a", "b")))
    assert batch.pred_class_id.tolist() == [-1, 1]
    assert batch.class_probabilities[0].tolist() == [0, 0]


def test_without_predictions_there_are_no_results():
    with pytest.raises(ValueError, match=r"no predictions.*Engine\.predict"):
        image_item(0, 1).image_results(MERGING)


def test_without_pixels_keeps_all_but_pixels():
    batch = image_item(3, 2)
    light = batch.without_pixels()
    assert light.image is None
    assert light.region_mask is None
    assert light.region_area is batch.region_area
    assert light.class_id is batch.class_id
    assert batch.image is not None


def test_views_are_joined_view_by_view():
    batch = RegionViewBatch.collate([view_item(4), view_item(7), view_item(1)])
    assert batch.batch_size == 3
    assert batch.region_index.tolist() == [4, 7, 1]
    assert batch.image.shape == (2, 3, 3, 8, 8)
    assert batch.mask.shape == (2, 3, 1, 8, 8)
    assert batch.image[:, :, 0, 0, 0].tolist() == [[4, 7, 1], [4, 7, 1]]
    assert batch.tokens is None
    assert batch.is_base.tolist() == [True] * 3


def test_tokens_are_joined_view_by_view():
    batch = RegionViewBatch.collate([view_item(4, tokens=True), view_item(7, tokens=True)])
    assert batch.tokens.shape == (2, 2, 5, 4)
    assert batch.attended.shape == (2, 2, 5)
    assert batch.image is None


def test_tensors_are_pinned_for_a_gpu(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    batch = RegionViewBatch(torch.tensor([1]), torch.tensor([0]), torch.tensor([True]), torch.tensor([0.5]))
    copy = batch.pin_memory()
    assert [id(tensor) for tensor in pinned] == [
        id(t) for t in (copy.region_index, copy.label, copy.is_base, copy.score)
    ]
    assert copy.image is None
