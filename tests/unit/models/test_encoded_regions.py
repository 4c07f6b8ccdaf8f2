# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.encoded_regions import encode_images, rows_of
from anomalib_ncd.synthetic.plates import generate_dataset


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = AnomalyNcd(backbone="test_vit", pretrained=False, image_size=224, num_novel_classes=3)
    model.make_heads(ClassSlots(("base_line",), 3))
    model.class_names = ["normal", "dent", "dent"]
    model.model.best_head.fill_(1)
    return model.eval()


def test_predictions_from_features_are_those_from_views(model, tiny_run):
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, eval_batch_size=7)
    _, _, references, image_index = rows_of(model.encode(datamodule))
    model.model.rejection.false_reject_rate = 0.9
    model.model.rejection.fit(references[image_index < 12], image_index[image_index < 12])
    encoded = encode_images(model.model.describe, datamodule.test_dataloader())
    _, _, found, whole = rows_of(encoded)
    torch.testing.assert_close(found, references)
    assert torch.equal(whole, image_index)
    from_features = NcdBatch.collate([model.model.classify_encoded(batch) for batch in encoded])
    with torch.no_grad():
        from_views = [model.model.classify(batch).without_pixels() for batch in datamodule.test_dataloader()]
    expected = NcdBatch.collate(from_views)
    torch.testing.assert_close(from_features.class_probabilities, expected.class_probabilities)
    for name in ("pred_class_id", "region_pred_class_id", "unknown", "region_unknown"):
        assert torch.equal(getattr(from_features, name), getattr(expected, name))
    assert from_features.unknown.any()
    assert not from_features.unknown.all()
    torch.testing.assert_close(expected.region_reference, references)


def test_the_stated_rate_holds_on_new_images_and_a_new_kind_stands_out(model, tmp_path):
    kinds = ("hole", "scratch", "stain")
    data = generate_dataset(
        tmp_path / "plates",
        kinds=kinds,
        num_train_good=0,
        num_test_good=0,
        num_per_kind=40,
        num_mixed=0,
        size=64,
        anomaly_maps=True,
    )
    datamodule = NcdDataModule(data.test_dir, data.anomaly_maps_dir)
    _, _, references, image_index = rows_of(model.encode(datamodule))
    kind = torch.tensor([kinds.index(record.folder_name) for record in datamodule.records])[image_index]
    called, new_called = [], []
    model.model.rejection.false_reject_rate = 0.1
    for seed in range(10):
        in_run = torch.from_numpy(np.random.default_rng(seed).random(120) < 0.5)[image_index]
        model.model.rejection.fit(references[in_run], image_index[in_run])
        called.append(float(model.model.rejection.is_unknown(references[~in_run]).float().mean()))
        known = in_run & (kind != 0)
        model.model.rejection.fit(references[known], image_index[known])
        new_called.append(float(model.model.rejection.is_unknown(references[kind == 0]).float().mean()))
    assert 0.04 < np.mean(called) < 0.16
    assert np.mean(new_called) > 3 * np.mean(called)


def test_what_was_not_encoded_is_refused(model, tiny_run):
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps)
    batch = next(iter(datamodule.test_dataloader())).without_pixels()
    with pytest.raises(ValueError, match="The batch holds no views"):
        encode_images(model.model.describe, [batch])
    with pytest.raises(ValueError, match="no features of its regions"):
        model.model.classify_encoded(batch)
    with pytest.raises(ValueError, match="no references of its regions"):
        rows_of([batch])
