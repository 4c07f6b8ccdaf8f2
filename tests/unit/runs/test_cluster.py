# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from torch.nn import functional as F

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.models.checkpoints import save_model
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.clustering.clustering import cluster_centres, cluster_features
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.runs import cluster as cluster_discovery
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("little_of_normal")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )


@pytest.fixture
def few_are_enough(monkeypatch):
    monkeypatch.setattr("anomalib_ncd.models.describer.MIN_NORMAL_IMAGES", 1)


# Good images have a region as well, the whole of each.
WHOLE_IMAGES = RegionSettings(method="mebin", erosion_size=3)


def data(run, **arguments):
    return NcdDataModule(run.images, run.anomaly_maps, **{"regions": WHOLE_IMAGES} | arguments)


def classes(batches, name="pred_class_id"):
    return torch.cat([getattr(batch, name) for batch in batches]).tolist()


def test_every_image_and_region_gets_a_class(model, tiny_run):
    module = data(tiny_run, eval_batch_size=7)
    batches = discover_by_clustering(model, module)
    assert [len(batch) for batch in batches] == [7, 7, 4]
    assert [path for batch in batches for path in batch.image_path] == [str(r.path) for r in module.records]
    assert set(classes(batches, "region_pred_class_id")) == {0, 1, 2}
    assert len(classes(batches, "region_pred_class_id")) == len(module.region_table())
    for batch in batches:
        torch.testing.assert_close(batch.region_class_probabilities.sum(dim=1), torch.ones(len(batch.region_area)))
        assert ((batch.region_pred_class_score > 1 / 3) & (batch.region_pred_class_score < 1)).all()
    assert all(batch.image is None for batch in batches)


def test_many_images_without_a_region_are_normal_and_one_of_the_classes(model, tiny_run):
    module = data(tiny_run, regions=RegionSettings())
    batches = discover_by_clustering(model, module)
    assert set(classes(batches)) == {0, 1, 2}
    assert set(classes(batches, "region_pred_class_id")) == {1, 2}
    assert model.class_names == ["normal", "class_1", "class_2"]
    assert [number for number, slot in enumerate(classes(batches)) if slot == 0] == module.region_table().empty_images


def test_an_estimate_counts_images_without_a_region_as_normal(tiny_run):
    auto = AnomalyNcd(backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3))
    batches = discover_by_clustering(auto, data(tiny_run, regions=RegionSettings()))
    estimate = auto.num_classes_estimate
    assert 0 in classes(batches)
    assert estimate.count == auto.slots.num_classes == len(auto.class_names)
    assert auto.class_names[0] == "normal"
    assert estimate.low <= estimate.count <= estimate.high
    assert not estimate.curve or estimate.curve[0][0] == 3


def test_images_get_the_classes_of_their_regions(model, tiny_run):
    for batch in discover_by_clustering(model, data(tiny_run)):
        temperature = float(batch.image_size[0].prod()) ** 0.5 / 8
        for image in range(len(batch)):
            of_image = batch.region_image_index == image
            weights = (batch.region_area[of_image].sqrt() / temperature).softmax(dim=0)
            expected = weights @ batch.region_class_probabilities[of_image]
            torch.testing.assert_close(batch.class_probabilities[image], expected)


def test_batch_size_does_not_matter(model, tiny_run):
    expected = classes(discover_by_clustering(model, data(tiny_run)))
    assert classes(discover_by_clustering(model, data(tiny_run, eval_batch_size=1))) == expected


def test_lines_and_squares_fall_apart(model, tiny_run):
    found = np.array(classes(discover_by_clustering(model, data(tiny_run))))
    line, square = found[6:12], found[12:]
    assert np.bincount(line).argmax() != np.bincount(square).argmax()


def test_the_encoder_is_not_trained(model, tiny_run):
    before = {name: value.clone() for name, value in model.model.describer.state_dict().items()}
    discover_by_clustering(model, data(tiny_run))
    assert model.model.describer.state_dict().keys() == before.keys()
    for name, value in model.model.describer.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_regions_get_the_nearest_centre_of_the_clusters(model, tiny_run):
    module = data(tiny_run)
    batches = discover_by_clustering(model, module)
    views = [model.model.describe(batch).feature.detach() for batch in module.test_dataloader()]
    rows = F.normalize(torch.cat(views).double(), dim=1)
    clusters = torch.as_tensor(cluster_features(rows, 3))
    centres = torch.stack([F.normalize(rows[clusters == cluster].mean(dim=0), dim=0) for cluster in range(3)])
    expected = torch.exp(10 * rows @ centres.T)
    expected /= expected.sum(dim=1, keepdim=True)
    found = torch.cat([batch.region_class_probabilities for batch in batches])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)
    # These pictures are so simple that no region lies nearer to the centre of another cluster.
    assert classes(batches, "region_pred_class_id") == clusters.tolist()


def test_the_model_classifies_new_images_afterwards(tiny_run, tmp_path):
    torch.manual_seed(0)
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    run = data(tiny_run)
    batches = discover_by_clustering(model, run)
    assert model.class_names == ["normal", "class_1", "class_2"]  # on good images the maps show nothing
    assert model.slots.base_names == ()
    assert tuple(model.score_range.tolist()) == run.fitted_score_range
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    again = engine.predict(model, datamodule=data(tiny_run, eval_batch_size=5))
    assert classes(again) == classes(batches)
    for name in ("class_probabilities", "region_class_probabilities"):
        before, after = (torch.cat([getattr(batch, name) for batch in found]) for found in (batches, again))
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "image_size", "side"),
    [("offline", 96, 96), ("vit_tiny_patch16_dinov3_qkvb", 64, 64), ("test_vit", None, 160)],
)
def test_views_are_cut_at_the_size_of_the_model(backbone, image_size, side, tiny_run, tmp_path):
    torch.manual_seed(0)
    model = AnomalyNcd(backbone=backbone, pretrained=False, image_size=image_size, num_novel_classes=3)
    module = data(tiny_run)
    batches = discover_by_clustering(model, module)
    assert next(iter(module.test_dataloader())).image.shape[2:] == (side, side)
    save_model(model, tmp_path / "model.ckpt")
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt")
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    assert classes(engine.predict(loaded, datamodule=data(tiny_run))) == classes(batches)


def test_a_cluster_that_scores_clearly_lowest_is_normal_for_good(tiny_run, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    monkeypatch.setattr(cluster_discovery, "find_normal_cluster", lambda labels, scores, areas: None)
    before = classes(discover_by_clustering(model, data(tiny_run)), "region_pred_class_id")
    assert model.class_names == ["class_1", "class_2", "class_3"]
    assert not model.slots.has_normal
    monkeypatch.setattr(cluster_discovery, "find_normal_cluster", lambda labels, scores, areas: 2)
    batches = discover_by_clustering(model, data(tiny_run))
    after = classes(batches, "region_pred_class_id")
    assert after == [{0: 1, 1: 2, 2: 0}[slot] for slot in before]
    assert model.class_names == ["normal", "class_1", "class_2"]
    assert all(batch.region_head_class_id is None for batch in batches)
    save_model(model, tmp_path / "model.ckpt")
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.class_names == ["normal", "class_1", "class_2"]
    assert loaded.slots.has_normal
    assert loaded.slots.from_clusters


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
@pytest.mark.usefixtures("few_are_enough")
def test_regions_are_compared_with_normal_images(backbone, tiny_run, tmp_path):
    torch.manual_seed(0)
    small = {"pretrained": False, "image_size": 64, "num_novel_classes": 3}
    model = AnomalyNcd(backbone=backbone, **small)
    run = data(tiny_run, normal_images=tiny_run.images / "good")
    batches = discover_by_clustering(model, run)
    found = classes(batches)
    assert found[:6] == [0] * 6
    assert 0 not in found[6:]
    assert model.class_names == ["normal", "class_1", "class_2"]
    assert min(batch.region_pred_class_score.min() for batch in batches) > 0.5  # sure in spite of the constant
    save_model(model, tmp_path / "model.ckpt")
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt")
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    again = engine.predict(loaded, datamodule=data(tiny_run, eval_batch_size=5))  # needs no normal images any more
    assert classes(again) == found
    fresh = AnomalyNcd(backbone=backbone, **small)  # takes over what the checkpoint's classes are made of
    assert classes(engine.predict(fresh, datamodule=data(tiny_run), ckpt_path=tmp_path / "model.ckpt")) == found
    for name in ("class_probabilities", "region_feature"):
        before, after = (torch.cat([getattr(batch, name) for batch in found]) for found in (batches, again))
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("few_are_enough")
def test_a_cluster_is_normal_only_if_it_looks_it(model, tiny_run, monkeypatch):
    monkeypatch.setattr(cluster_discovery, "find_cluster_of_normal", lambda *given: None)
    monkeypatch.setattr(cluster_discovery, "find_normal_cluster", lambda *given: None)
    discover_by_clustering(model, data(tiny_run, normal_images=tiny_run.images / "good"))
    assert model.class_names == ["class_1", "class_2", "class_3"]


@pytest.mark.usefixtures("few_are_enough")
def test_scores_decide_where_there_is_but_one_normal_image(model, tiny_run, monkeypatch):
    seen = []
    monkeypatch.setattr(cluster_discovery, "find_normal_cluster", lambda *given: seen.append(given))
    discover_by_clustering(model, data(tiny_run, normal_images=tiny_run.images / "good" / "000.png"))
    assert len(seen) == 1


@pytest.mark.usefixtures("few_are_enough")
def test_a_describer_goes_with_the_images_that_are_given(model, tiny_run):
    without = classes(discover_by_clustering(model, data(tiny_run)))
    assert model.hparams["describer"] == "plain_features"
    discover_by_clustering(model, data(tiny_run, normal_images=tiny_run.images / "good"))
    assert model.hparams["describer"] == "normal_residuals"
    assert classes(discover_by_clustering(model, data(tiny_run))) == without


def test_a_fresh_model_describes_as_its_checkpoint(model, tiny_run, tmp_path):
    [batch] = discover_by_clustering(model, data(tiny_run))
    save_model(model, tmp_path / "model.ckpt")
    fresh = AnomalyNcd("test_vit", pretrained=False, training=model.training_settings, num_novel_classes=3)
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    [again] = engine.predict(fresh, datamodule=data(tiny_run), ckpt_path=tmp_path / "model.ckpt")
    torch.testing.assert_close(again.region_feature, batch.region_feature, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.region_reference, batch.region_reference, atol=1e-4, rtol=1e-4)
    other = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt", describer="frozen_features")
    assert other.hparams["describer"] == "plain_features"


@pytest.mark.usefixtures("few_are_enough")
def test_good_images_that_were_found_but_not_given_are_not_compared_with(model, tiny_run, monkeypatch, caplog):
    good = list_images(tiny_run.images / "good")
    monkeypatch.setattr("anomalib_ncd.data.datamodule.find_normal_images", lambda *given: good)
    discover_by_clustering(model, data(tiny_run, base="synthetic"))
    assert model.hparams["describer"] == "plain_features"
    assert "good images" not in caplog.text


def test_few_normal_images_are_as_good_as_none(model, tiny_run, caplog):
    without = discover_by_clustering(model, data(tiny_run))
    assert "good images" not in caplog.text
    few = data(tiny_run, normal_images=tiny_run.images / "good")
    assert classes(discover_by_clustering(model, few)) == classes(without)
    assert "compared with good images where there are 12 or more; 6 would tell too little" in caplog.text


def test_scores_and_masks_are_the_evidence(model, tiny_run, monkeypatch):
    seen = {}
    monkeypatch.setattr(cluster_discovery, "find_normal_cluster", lambda *given: seen.update(given=given))
    module = data(tiny_run)
    discover_by_clustering(model, module)
    rows = module.region_table().rows
    assert seen["given"][1].tolist() == pytest.approx([row.score for row in rows])
    assert seen["given"][2].tolist() == [row.area for row in rows]


def test_base_classes_of_an_earlier_training_are_left_behind(tiny_run):
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    model.make_heads(ClassSlots(("dent", "hole"), 3))
    model.model.best_head.fill_(2)
    [batch] = discover_by_clustering(model, data(tiny_run))
    assert model.slots.base_names == ()
    assert model.model.best_head == 0
    assert model.model.heads.weight.shape == (4, 3, 65)
    assert batch.class_probabilities.shape == (18, 3)


def test_residuals_are_not_trained(tiny_run, tmp_path):
    model = AnomalyNcd(backbone="test_vit", pretrained=False, describer="normal_residuals", num_novel_classes=3)
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match="`describer='normal_residuals'` can be trained"):
        engine.fit(model, datamodule=data(tiny_run))


def test_training_does_not_go_on_from_clusters(tiny_run, tmp_path):
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    discover_by_clustering(model, data(tiny_run))
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match=r"made from clusters.*start with a new AnomalyNcd"):
        engine.fit(model, datamodule=data(tiny_run))
    save_model(model, tmp_path / "model.ckpt")
    fresh = AnomalyNcd("test_vit", pretrained=False, training=model.training_settings, num_novel_classes=3)
    with pytest.raises(ValueError, match=r"made from clusters.*start with a new AnomalyNcd"):
        engine.fit(fresh, datamodule=data(tiny_run), ckpt_path=tmp_path / "model.ckpt")


def test_centres_are_mean_directions():
    features = torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, 7.0], [4.0, 4.0]])
    centres = cluster_centres(features, torch.tensor([0, 1, 1, 0]), num_clusters=2)
    half = np.pi / 8  # between 0 and 45 degrees, whatever the lengths
    torch.testing.assert_close(centres, torch.tensor([[np.cos(half), np.sin(half)], [0, 1]], dtype=torch.float32))


def test_clusters_without_regions_point_away():
    centres = cluster_centres(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), num_clusters=4)
    torch.testing.assert_close(centres[2:], torch.full((2, 2), -(0.5**0.5)))


def test_features_and_number_of_classes_are_passed_on(model, tiny_run, monkeypatch):
    seen = {}

    def cluster(features, num_clusters):
        seen.update(features=features, num_clusters=num_clusters)
        return np.zeros(len(features), np.int64)

    monkeypatch.setattr(cluster_discovery, "cluster_features", cluster)
    batches = discover_by_clustering(model, data(tiny_run, eval_batch_size=7))
    features = seen.pop("features")
    assert features.shape[1] == 65
    assert seen == {"num_clusters": 3}
    assert torch.equal(torch.cat([batch.region_feature for batch in batches]), features)


def test_more_classes_than_regions_leave_classes_empty(tiny_run):
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=50
    )
    batches = discover_by_clustering(model, data(tiny_run))
    assert batches[0].class_probabilities.shape == (18, 50)
    num_regions = sum(len(batch.region_area) for batch in batches)
    assert num_regions < 50
    assert max(classes(batches, "region_pred_class_id")) < num_regions


def test_a_single_image_is_one_class(model, tiny_run):
    module = NcdDataModule(tiny_run.images / "square" / "000.png", tiny_run.anomaly_maps / "square")
    [batch] = discover_by_clustering(model, module)
    assert batch.pred_class_id.tolist() == [0]
