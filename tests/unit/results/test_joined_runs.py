# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.results.joined_runs import free_keys, join_labels, select_images
from anomalib_ncd.results.run_results import RunResults

IMAGE_OF_REGION = [0, 2, 1, 2, 0]


def build_batch(class_id=None):
    index = torch.tensor(IMAGE_OF_REGION)
    labels = None if class_id is None else torch.tensor(class_id)
    return NcdBatch(
        image_path=["a.png", "b.png", "c.png"],
        image_size=torch.tensor([[1, 1], [2, 2], [3, 3]]),
        image=None,
        region_mask=None,
        region_image_index=index,
        region_box_xyxy=torch.zeros(5, 4),
        region_score=torch.zeros(5),
        region_area=torch.arange(5),
        class_id=labels,
        region_class_id=None if labels is None else labels[index],
        pred_class_id=torch.tensor([7, 8, 9]),
    )


def build_results(class_id, label_names):
    batch = build_batch(class_id)
    return RunResults(batch, ["a", "b", "c"], ["class_1"], "regions", np.zeros((5, 2), np.float32), label_names)


@pytest.mark.parametrize("indices", [[0, 1, 2], [2, 0], [1], []])
def test_regions_go_with_their_images(indices):
    batch = build_batch()
    chosen = select_images(batch, indices)
    assert chosen.image_path == [batch.image_path[index] for index in indices]
    assert chosen.pred_class_id.tolist() == [7 + index for index in indices]
    pairs = list(zip(chosen.region_image_index.tolist(), chosen.region_area.tolist(), strict=True))
    expected = [(place, area) for place, i in enumerate(indices) for area in range(5) if IMAGE_OF_REGION[area] == i]
    assert sorted(pairs) == sorted(expected)
    assert chosen.class_id is None
    assert batch.image_path == ["a.png", "b.png", "c.png"]


def test_labels_are_numbered_as_in_the_run():
    results = build_results([0, 1, -1], ["good", "dent"])
    batch, names = join_labels(results, build_batch([1, 0, -1]), ["crack", "dent"])
    assert names == ["good", "dent", "crack"]
    assert batch.class_id.tolist() == [0, 1, -1, 1, 2, -1]
    assert batch.region_class_id.tolist() == [0, -1, 1, -1, 0, 1, -1, 2, -1, 1]
    assert results.batch.class_id.tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("old", "old_names", "new", "new_names", "expected"),
    [
        (None, [], [0, 1, 1], ["good", "dent"], [-1, -1, -1, 0, 1, 1]),
        ([0, 1, 1], ["good", "dent"], None, [], [0, 1, 1, -1, -1, -1]),
    ],
)
def test_images_without_labels_are_not_scored(old, old_names, new, new_names, expected):
    batch, names = join_labels(build_results(old, old_names), build_batch(new), new_names)
    assert batch.class_id.tolist() == expected
    assert names == ["good", "dent"]


def test_without_labels_there_are_none():
    batch, names = join_labels(build_results(None, []), build_batch(), [])
    assert (batch.class_id, names, len(batch)) == (None, [], 6)


def test_keys_stay_apart():
    assert free_keys(["a", "b"], ["b", "b~2"]) == ["a", "b~3"]
    assert free_keys(["b", "b~2"], ["b"]) == ["b~3", "b~2"]
    assert free_keys([], ["a"]) == []
