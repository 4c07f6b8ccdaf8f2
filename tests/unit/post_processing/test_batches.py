# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from anomalib.data import DepthBatch, ImageBatch
from PIL import Image

from anomalib_ncd.post_processing import MEBinBatch, MEBinItem, masks_at_file_size
from anomalib_ncd.post_processing.batches import add_mebin_results

RESULTS = (torch.eye(4).bool().repeat(2, 1, 1), torch.tensor([0.5, 0.25]).double(), torch.tensor([4, 1]))


@pytest.fixture
def batch():
    batch = ImageBatch(image=torch.rand(2, 3, 4, 4), image_path=["a.png", "b.png"], gt_label=torch.tensor([0, 1]))
    add_mebin_results(batch, *RESULTS)
    return batch


def test_same_object_gets_the_results(batch):
    assert isinstance(batch, MEBinBatch)
    assert batch.threshold.tolist() == [0.5, 0.25]
    assert batch.num_anomalies.tolist() == [4, 1]
    assert torch.equal(batch.pred_mask, RESULTS[0])
    assert batch.gt_label.tolist() == [False, True]


def test_items_carry_results(batch):
    items = list(batch)
    assert all(isinstance(item, MEBinItem) for item in items)
    assert [int(item.num_anomalies) for item in items] == [4, 1]
    assert [item.image_path for item in items] == ["a.png", "b.png"]


def test_arrays_carry_results(batch):
    arrays = batch.to_numpy()
    np.testing.assert_array_equal(arrays.threshold, [0.5, 0.25])
    assert [int(item.num_anomalies) for item in arrays] == [4, 1]
    assert float(next(iter(batch)).to_numpy().threshold) == 0.5


def test_update_and_keys_know_the_fields(batch):
    batch.update(threshold=torch.zeros(2))
    assert batch["threshold"].tolist() == [0, 0]
    assert "num_anomalies" in batch.keys(include_none=False)


def test_other_batches_get_attributes():
    batch = DepthBatch(image=torch.rand(2, 3, 4, 4), depth_map=torch.rand(2, 1, 4, 4))
    add_mebin_results(batch, *RESULTS)
    assert type(batch) is DepthBatch
    assert batch.num_anomalies.tolist() == [4, 1]


def test_masks_at_file_size(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for path, size in zip(paths, [(8, 16), (4, 4)], strict=True):
        Image.new("L", size).save(path)
    batch = ImageBatch(image=torch.rand(2, 3, 4, 4), image_path=paths, pred_mask=RESULTS[0])
    masks = masks_at_file_size(batch)
    np.testing.assert_array_equal(masks[0], np.kron(np.eye(4), np.ones((4, 2))))
    np.testing.assert_array_equal(masks[1], np.eye(4))
    np.testing.assert_array_equal(masks_at_file_size(batch.items[0])[0], masks[0])


def test_masks_at_file_size_needs_masks():
    with pytest.raises(ValueError, match="must have `pred_mask` and `image_path`"):
        masks_at_file_size(ImageBatch(image=torch.rand(1, 3, 4, 4)))
