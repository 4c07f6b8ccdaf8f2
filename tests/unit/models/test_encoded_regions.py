# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import ModelInputs, NcdBatch, RegionViewBatch
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.encoded_regions import ViewBank, _attended_tokens, encode_images, identity_of, rows_of
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plates import generate_dataset

CPU = torch.device("cpu")


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


@pytest.fixture(scope="module")
def regions(tiny_run):
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, tiny_run.base)
    datamodule.prepare_for(ModelInputs(32))
    return datamodule.train_regions()


def counting_trunk(images, masks):
    """Tokens that carry their view's mean and their own number; a view's first mask row says how many are attended."""
    numbers = torch.arange(6).float().expand(len(images), 6)
    means = images.float().mean(dim=(1, 2, 3))[:, None].expand(-1, 6)
    attended = numbers < 2 + (masks.mean(dim=(1, 2, 3)) * 4)[:, None]
    return torch.stack([means, numbers], dim=-1), attended


@pytest.fixture(scope="module")
def bank(regions):
    torch.manual_seed(0)
    return ViewBank.build(regions, counting_trunk, 4, CPU, views_per_batch=28)


def test_it_keeps_what_is_attended(regions, bank):
    assert len(bank) == len(regions)
    assert bank.num_views == 4
    assert bank.tokens.dtype == torch.float16
    assert bank.starts.shape == (len(regions), 5)
    assert bank.starts[0, 0] == 0
    assert bank.starts[-1, -1] == len(bank.tokens)
    assert torch.equal(bank.starts[1:, 0], bank.starts[:-1, -1])
    for region in range(len(regions)):
        for view in range(4):
            tokens = bank.tokens[bank.starts[region, view] : bank.starts[region, view + 1]]
            assert tokens[:, 1].tolist() == list(range(len(tokens)))
            assert len(set(tokens[:, 0].tolist())) == 1


def test_a_batch_holds_views_of_its_regions(regions, bank):
    torch.manual_seed(0)
    indices = [3, 19, 3]
    batch = RegionViewBatch.collate(bank.__getitems__(indices))
    assert batch.region_index.tolist() == indices
    assert batch.image is None
    assert torch.equal(batch.is_base, regions.is_base[indices])
    assert torch.equal(batch.score, regions.scores[indices])
    assert batch.tokens.shape[:2] == batch.attended.shape[:2] == (2, 3)
    assert (batch.tokens[~batch.attended] == 0).all()
    for number, index in enumerate(indices):
        kept = [
            bank.tokens[bank.starts[index, view] : bank.starts[index, view + 1]].tolist()
            for view in range(bank.num_views)
        ]
        drawn = [batch.tokens[view, number][batch.attended[view, number]].tolist() for view in range(2)]
        assert all(view in kept for view in drawn)
        assert drawn[0] != drawn[1]


def test_every_view_is_drawn(bank):
    torch.manual_seed(0)
    seen = {item.tokens[view, 0, 0, 0].item() for item in bank.__getitems__([5] * 100) for view in range(2)}
    assert len(seen) == 4


def test_one_item_alone(bank):
    item = bank[5]
    assert item.region_index.tolist() == [5]
    assert item.tokens.shape[:2] == (2, 1)
    assert item.attended.any()


def test_fewer_views_than_an_item_needs_are_refused(regions):
    with pytest.raises(ValueError, match="`num_cached_views` must be at least 2, the views per region, got 1"):
        ViewBank.build(regions, counting_trunk, 1, CPU)


def test_batches_without_images_are_refused(bank):
    with pytest.raises(ValueError, match="made from images"):
        _attended_tokens(bank[0], counting_trunk, CPU)


def test_the_views_do_not_depend_on_workers_or_batches(regions, bank):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for options in ({"num_workers": 1}, {"views_per_batch": 4}):
        again = ViewBank.build(regions, counting_trunk, 4, CPU, **options)
        assert torch.equal(again.tokens, bank.tokens)
        assert torch.equal(again.starts, bank.starts)
    assert torch.equal(torch.get_rng_state(), state)
    other = ViewBank.build(regions, counting_trunk, 4, CPU, seed=1)
    assert not torch.equal(other.tokens[:, 0], bank.tokens[: len(other.tokens), 0])


def test_a_whole_bank_is_taken_up_and_an_interrupted_one_made_anew(regions, bank, tmp_path):
    calls = []

    def failing_trunk(images, masks):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return counting_trunk(images, masks)

    with pytest.raises(KeyboardInterrupt):
        ViewBank.build(regions, failing_trunk, 4, CPU, tmp_path, views_per_batch=8)
    resumed = ViewBank.build(regions, failing_trunk, 4, CPU, tmp_path, views_per_batch=8)
    assert sum(calls[3:]) == 4 * len(regions)
    assert torch.equal(resumed.tokens, bank.tokens)
    assert torch.equal(resumed.starts, bank.starts)
    calls.clear()
    again = ViewBank.build(regions, failing_trunk, 4, CPU, tmp_path)
    assert torch.equal(again.tokens, bank.tokens)
    assert torch.equal(again.starts, bank.starts)
    assert not calls
    (tmp_path / "counts.npz").unlink()
    assert torch.equal(ViewBank.build(regions, counting_trunk, 4, CPU, tmp_path).tokens, bank.tokens)


@pytest.mark.parametrize("change", [{"made_from": {"weights": "others"}}, {"seed": 1}, {"num_views": 3}])
def test_a_bank_made_from_something_else_is_made_anew(regions, tmp_path, change):
    calls = []

    def trunk(images, masks):
        calls.append(len(images))
        return counting_trunk(images, masks)

    settings = {"num_views": 2, "device": CPU, "folder": tmp_path}
    ViewBank.build(regions, trunk, **settings)
    calls.clear()
    bank = ViewBank.build(regions, trunk, **(settings | change))
    assert sum(calls) == len(regions) * bank.num_views


def test_the_identity_is_that_of_the_frozen_part():
    def identity(seed=0, **settings):
        torch.manual_seed(seed)
        training = TrainingSettings(**{"mask_layers": 3} | settings)
        return AnomalyNcd(backbone="test_vit", pretrained=False, training=training).model.describer

    describer = identity()
    own = identity_of(describer)
    for parameter in describer.parameters():
        if parameter.requires_grad:
            parameter.data += 1
    assert identity_of(describer) == own
    assert identity_of(identity(mask_layers=2)) != own
    assert identity_of(identity(empty_mask="cls")) != own
    assert identity_of(identity(seed=1)) != own


def test_cached_tokens_give_the_features_of_the_trunk(tiny_run):
    torch.manual_seed(0)
    model = AnomalyNcd(backbone="test_vit", pretrained=False, image_size=224, num_novel_classes=3).eval()
    regions = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, tiny_run.base).train_regions()
    full = []

    def trunk(images, masks):
        full.append(model.model.describer.frozen(images, masks))
        return full[-1]

    bank = ViewBank.build(regions, trunk, 2, CPU, views_per_batch=8)
    with torch.no_grad():
        expected = torch.cat([model.model.describer.encoder.trained(output) for output in full])
        batch = RegionViewBatch.collate(bank.__getitems__(list(range(len(regions)))))
        assert len(bank.tokens) < 2 * len(regions) * 197
        assert not batch.attended.all()
        features = model.model(model.model.frozen_views(batch)).features.unflatten(0, (2, len(regions)))
    expected = expected.unflatten(0, (len(regions), 2)).transpose(0, 1)
    # The order of the two views is drawn at random.
    for index in range(len(regions)):
        swapped = (features[0, index] - expected[0, index]).norm() > (features[0, index] - expected[1, index]).norm()
        ours = features[:, index].flip(0) if swapped else features[:, index]
        torch.testing.assert_close(ours, expected[:, index], atol=5e-3, rtol=5e-3)
