# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, LightningModule, seed_everything
from sklearn.metrics import normalized_mutual_info_score
from torch.nn import functional as F

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.models.checkpoints import write_class_names
from anomalib_ncd.models.clustering.clustering import cluster_prototypes
from anomalib_ncd.models.describer import FrozenFeatures
from anomalib_ncd.models.encoded_regions import ViewBank, rows_of
from anomalib_ncd.models.rejection import RegionRejection
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.views import eval_views
from anomalib_ncd.settings import TrainingSettings

BASE_NAMES = ["base_line", "base_square"]
METRICS = ("NMI", "ARI", "ClusterAccuracy", "ClusterMacroF1")


def build_model(**arguments):
    """A small model; settings of training stand beside its own arguments."""
    names = {field.name for field in fields(TrainingSettings)} & arguments.keys()
    training = TrainingSettings(**{"mask_layers": 3} | {name: arguments.pop(name) for name in names})
    arguments = {"backbone": "test_vit", "pretrained": False, "num_novel_classes": 3} | arguments
    return AnomalyNcd(training=training, **arguments)


def build_data(run, **arguments):
    arguments = {"images": run.images, "anomaly_maps": run.anomaly_maps, "base": run.base} | arguments
    return NcdDataModule(labels="folders", **arguments)


def build_engine(folder, **arguments):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=folder, **quiet, **arguments)


class Record(Callback):
    """Notes learning rates, losses and the optimizer's first state."""

    def __init__(self):
        self.rates, self.losses, self.epochs, self.first_state = [], [], [], None

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if self.first_state is None:
            state = trainer.optimizers[0].state_dict()["state"]
            self.first_state = {key: value["momentum_buffer"].clone() for key, value in state.items()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if outputs:  # none for a batch that was skipped
            self.losses.append(float(outputs["loss"]))


@dataclass
class Fitted:
    """A model after two epochs, its checkpoint, and what was noted meanwhile."""

    model: AnomalyNcd
    checkpoint: Path
    record: Record
    score_range: tuple[float, float]


@pytest.fixture(scope="module")
def fitted(tiny_run, tmp_path_factory):
    seed_everything(1)
    model, record, datamodule = build_model(), Record(), build_data(tiny_run, train_batch_size=8)
    engine = build_engine(tmp_path_factory.mktemp("fitted"), max_epochs=2, callbacks=[record])
    engine.fit(model, datamodule)
    return Fitted(model, Path(engine.best_model_path), record, datamodule.fitted_score_range)


def predict(model, datamodule, folder, **arguments):
    """Probabilities of images and of regions, and image paths."""
    batches = build_engine(folder).predict(model, datamodule=datamodule, **arguments)
    assert all(batch.image is None and batch.region_mask is None for batch in batches)
    by_image = torch.cat([batch.class_probabilities for batch in batches])
    by_region = torch.cat([batch.region_class_probabilities for batch in batches])
    return by_image, by_region, [path for batch in batches for path in batch.image_path]


@pytest.fixture(scope="module")
def predicted(fitted, tiny_run, tmp_path_factory):
    return predict(fitted.model, build_data(tiny_run), tmp_path_factory.mktemp("predicted"))


def test_it_is_a_direct_subclass_for_anomalib():
    assert AnomalyNcd.__base__ is AnomalibModule
    assert AnomalyNcd.__module__ == "anomalib_ncd.models.lightning_model"


def test_training_learns(fitted):
    assert fitted.record.epochs == [0, 1]
    assert all(math.isfinite(loss) for loss in fitted.record.losses)
    assert fitted.model.slots.base_names == tuple(BASE_NAMES)
    assert fitted.model.slots.num_base == 2
    assert fitted.model.slots.default_names == ["normal", "class_1", "class_2"]


def test_classes_can_be_named(fitted, predicted, tiny_run, tmp_path):
    model = build_model()
    assert model.class_names == model.slots.default_names
    model.class_names = ("normal", "dent", "dent")
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    assert checkpoint["anomalib_ncd"]["slots"]["given_names"] == ["normal", "dent", "dent"]
    file = tmp_path / "named.ckpt"
    torch.save(torch.load(fitted.checkpoint, weights_only=True), file)
    write_class_names(file, model.class_names)
    loaded = AnomalyNcd.load_from_checkpoint(file)
    assert loaded.class_names == ["normal", "dent", "dent"]
    [batch] = build_engine(tmp_path).predict(loaded, datamodule=build_data(tiny_run))
    by_image = predicted[0]
    torch.testing.assert_close(batch.class_probabilities, by_image)
    torch.testing.assert_close(batch.pred_class_score, torch.maximum(by_image[:, 0], by_image[:, 1:].sum(1)))
    assert torch.equal(batch.pred_class_id > 0, by_image[:, 0] < by_image[:, 1:].sum(1))


def test_there_is_a_name_for_each_class():
    model = build_model()
    with pytest.raises(ValueError, match="`class_names` must hold 3 names"):
        model.class_names = ["normal", "dent"]


def test_predictions_hold_the_features_of_the_regions(fitted, tiny_run):
    datamodule, model = build_data(tiny_run, eval_batch_size=4), fitted.model.eval()
    datamodule.prepare_for(model.inputs)
    batch = next(iter(datamodule.test_dataloader()))
    with torch.no_grad():
        expected = model.model.describer(batch.image, batch.region_mask).feature
        predicted = model.model.classify(batch).without_pixels()
        frozen = model.model.describer.frozen(batch.image, batch.region_mask)
        logits = model.model(frozen).logits[..., model.slots.num_base :]
    found = predicted.region_feature
    assert torch.equal(predicted.region_head_class_id, logits.argmax(dim=-1).T)
    best = predicted.region_head_class_id[:, model.model.best_head]
    assert torch.equal(best, predicted.region_class_probabilities.argmax(dim=1))
    assert found.shape == (len(batch.region_area), 64)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_training_leaves_what_new_regions_are_compared_with(fitted, tiny_run):
    rejection, datamodule = fitted.model.model.rejection, build_data(tiny_run)
    _, _, references, image_index = rows_of(fitted.model.eval().encode(datamodule))
    afterwards = RegionRejection(0.02)
    afterwards.fit(references, image_index)
    torch.testing.assert_close(rejection.references, afterwards.references)
    loaded = AnomalyNcd.load_from_checkpoint(fitted.checkpoint)
    assert torch.equal(loaded.model.rejection.references, rejection.references)
    assert loaded.model.rejection.threshold == rejection.threshold == pytest.approx(afterwards.threshold)
    assert build_model(false_reject_rate=None).model.rejection.threshold is None
    with pytest.raises(ValueError, match="`false_reject_rate` must be above 0 and below 1, got 2"):
        build_model(false_reject_rate=2)


def test_only_the_last_block_and_the_heads_learn(fitted):
    model = fitted.model
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names
    assert all(
        name.startswith(("model.describer.encoder.backbone.blocks.5.", "model.heads", "model.projector"))
        for name in names
    )


def test_the_best_head_has_the_smallest_loss(fitted):
    assert fitted.model.head_loss.isfinite().all()
    assert fitted.model.head_loss.min() > 0
    assert fitted.model.model.best_head == fitted.model.head_loss.argmin()


def test_the_learning_rate_falls_along_a_cosine(fitted):
    assert fitted.record.rates == pytest.approx([0.003, 0.003 * (0.001 + 0.999 * 0.5)])


def test_the_checkpoint_is_plain_data(fitted):
    checkpoint = torch.load(fitted.checkpoint, weights_only=True)
    assert checkpoint["anomalib_ncd"] == {
        "backbone": "test_vit",
        "image_size": 160,
        "describer": "frozen_features",
        "num_heads": 4,
        "slots": {
            "base_names": BASE_NAMES,
            "num_novel": 3,
            "given_names": None,
            "has_normal": True,
            "from_clusters": False,
            "numbers": None,
        },
        "num_classes_estimate": None,
        "region_settings": RegionSettings().to_dict(),
        "map_kind": "float",
    }
    assert tuple(checkpoint["state_dict"]["score_range"].tolist()) == fitted.score_range
    assert checkpoint["state_dict"]["model.best_head"] == fitted.model.model.best_head
    assert checkpoint["hyper_parameters"]["training"] == asdict(TrainingSettings(mask_layers=3))


def test_test_scores_images_and_regions(fitted, tiny_run, tmp_path):
    [scores] = build_engine(tmp_path).test(fitted.model, build_data(tiny_run))
    assert set(scores) == {f"{level}_{name}" for level in ("image", "region") for name in METRICS}
    assert all(-0.5 <= score <= 1 for score in scores.values())


def test_test_scores_are_those_of_the_predictions(fitted, predicted, tiny_run, tmp_path):
    [scores] = build_engine(tmp_path).test(fitted.model, build_data(tiny_run))
    target = [Path(path).parent.name for path in predicted[2]]
    expected = normalized_mutual_info_score(target, predicted[0].argmax(dim=1).tolist())
    assert scores["image_NMI"] == pytest.approx(expected, abs=1e-6)


def test_test_works_without_labels(fitted, tiny_run, tmp_path):
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps)
    [scores] = build_engine(tmp_path).test(fitted.model, datamodule=datamodule)
    assert all(math.isnan(score) for score in scores.values())


def test_predictions_are_probabilities_of_every_image(predicted):
    by_image, by_region, paths = predicted
    assert by_image.shape == (18, 3)
    assert len(set(paths)) == 18
    assert len(by_region) == 12  # good images have none
    torch.testing.assert_close(by_image.sum(dim=1), torch.ones(18))
    torch.testing.assert_close(by_region.sum(dim=1), torch.ones(len(by_region)))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_does_not_matter(fitted, predicted, tiny_run, tmp_path, batch_size):
    by_image, by_region, paths = predict(fitted.model, build_data(tiny_run, eval_batch_size=batch_size), tmp_path)
    assert paths == predicted[2]
    torch.testing.assert_close(by_image, predicted[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_region, predicted[1], atol=1e-5, rtol=1e-4)


def test_a_loaded_model_predicts_the_same(fitted, predicted, tiny_run, tmp_path):
    model = AnomalyNcd.load_from_checkpoint(fitted.checkpoint)
    assert model.slots.base_names == tuple(BASE_NAMES)
    assert tuple(model.score_range.tolist()) == fitted.score_range
    assert model.model.best_head == fitted.model.model.best_head
    # Base classes come from the checkpoint: prediction needs no base data.
    by_image, by_region, _ = predict(model, build_data(tiny_run, base=None), tmp_path)
    torch.testing.assert_close(by_image, predicted[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_region, predicted[1], atol=1e-5, rtol=1e-4)


def test_the_engine_loads_checkpoints_too(fitted, predicted, tiny_run, tmp_path):
    by_image, _, _ = predict(build_model(), build_data(tiny_run), tmp_path, ckpt_path=fitted.checkpoint)
    torch.testing.assert_close(by_image, predicted[0], atol=1e-5, rtol=1e-4)


def test_a_single_image_gets_the_class_it_has_among_others(fitted, predicted, tiny_run, tmp_path):
    model = AnomalyNcd.load_from_checkpoint(fitted.checkpoint)
    for number in (4, 9, 14):
        path = Path(predicted[2][number])
        datamodule = NcdDataModule(path, tiny_run.anomaly_maps / path.parent.name)
        by_image, _, paths = predict(model, datamodule, tmp_path)
        assert paths == [str(path)]
        assert datamodule.fitted_score_range == fitted.score_range
        torch.testing.assert_close(by_image[0], predicted[0][number], atol=1e-5, rtol=1e-4)


def test_any_loader_of_batches_can_be_predicted(fitted, predicted, tiny_run, tmp_path):
    datamodule = build_data(tiny_run)
    datamodule.prepare_for(fitted.model.inputs)
    batches = build_engine(tmp_path).predict(fitted.model, dataloaders=datamodule.test_dataloader())
    torch.testing.assert_close(torch.cat([b.class_probabilities for b in batches]), predicted[0], atol=1e-5, rtol=1e-4)


def test_training_goes_on(fitted, tiny_run, tmp_path):
    record = Record()
    model = build_model()
    engine = build_engine(tmp_path, max_epochs=4, callbacks=[record])
    engine.fit(model, datamodule=build_data(tiny_run, train_batch_size=8), ckpt_path=fitted.checkpoint)
    assert record.epochs == [2, 3]
    assert engine.trainer.current_epoch == 4
    assert engine.trainer.global_step == 4 * math.ceil(20 / 8)
    saved = torch.load(fitted.checkpoint, weights_only=True)["optimizer_states"][0]["state"]
    assert saved.keys() == record.first_state.keys()
    for key, value in saved.items():
        torch.testing.assert_close(record.first_state[key], value["momentum_buffer"])
    # The cosine is that of four epochs now.
    expected = [0.003 * (0.001 + 0.999 * (1 + math.cos(math.pi * epoch / 4)) / 2) for epoch in (2, 3)]
    assert record.rates == pytest.approx(expected)
    assert tuple(model.score_range.tolist()) == fitted.score_range


def test_other_base_classes_are_refused_when_training_goes_on(fitted, tiny_run, tmp_path):
    model = AnomalyNcd.load_from_checkpoint(fitted.checkpoint)
    with pytest.raises(ValueError, match=r"base classes \['base_line', 'base_square'\], but the datamodule has \[\]"):
        build_engine(tmp_path, max_epochs=1).fit(model, datamodule=build_data(tiny_run, base=None))


def test_base_classes_are_optional(tiny_run, tmp_path):
    model, record = build_model(), Record()
    engine = build_engine(tmp_path, max_epochs=1, callbacks=[record])
    engine.fit(model, datamodule=build_data(tiny_run, base=None))
    assert all(math.isfinite(loss) for loss in record.losses)
    assert model.slots.num_base == 0
    assert AnomalyNcd.load_from_checkpoint(engine.best_model_path).slots.base_names == ()


@pytest.mark.parametrize("base", ["labelled", None])
def test_normal_images_teach_what_the_first_class_is(tiny_run, tmp_path, base):
    # Good images are among those to sort, with a region as well: the whole of each.
    arguments = {"train_batch_size": 8, "regions": RegionSettings(method="mebin", erosion_size=3)}
    arguments |= {} if base else {"base": None}
    normal = build_data(tiny_run, normal_images=tiny_run.images / "good", **arguments)
    regions = normal.train_regions()
    examples = range(regions.num_base, int(regions.is_base.sum()))
    images, masks = map(torch.from_numpy, eval_views([regions.load(index) for index in examples]))
    found = []
    for datamodule in (build_data(tiny_run, **arguments), normal):
        seed_everything(1)
        model = build_model(image_size=224, num_cached_views=2, learning_rate=0.03, normal_threshold=None)
        build_engine(tmp_path / str(len(found)), max_epochs=8).fit(model, datamodule)
        with torch.no_grad():
            logits = model.model.heads(model.eval().model.describer(images, masks).feature)  # of all heads
        found.append(float((logits[..., model.slots.num_base :] / 0.1).softmax(dim=-1)[..., 0].mean()))
    # Without examples it hangs on the seed how normal they are found.
    assert found[1] > (found[0] + 0.2 if base else 0.45)


@pytest.mark.parametrize("num_cached_views", [None, 2])
def test_bfloat16_trains(tiny_run, tmp_path, num_cached_views):
    model, record = build_model(num_cached_views=num_cached_views), Record()
    build_engine(tmp_path, max_epochs=1, callbacks=[record], precision="bf16-mixed").fit(model, build_data(tiny_run))
    assert record.losses
    assert all(math.isfinite(loss) for loss in record.losses)
    batches = build_engine(tmp_path, precision="bf16-mixed").predict(model, datamodule=build_data(tiny_run))
    assert torch.isfinite(torch.cat([batch.class_probabilities for batch in batches])).all()


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
def test_cached_views_train(backbone, tiny_run, tmp_path):
    seed_everything(1)
    model, record = build_model(backbone=backbone, num_cached_views=3), Record()
    datamodule = build_data(tiny_run, train_batch_size=8)
    engine = build_engine(tmp_path, max_epochs=2, callbacks=[record])
    engine.fit(model, datamodule)
    assert engine.trainer.train_dataloader.dataset.num_views == 3
    assert 0 < len(record.losses) <= engine.trainer.global_step
    assert all(math.isfinite(loss) for loss in record.losses)
    assert AnomalyNcd.load_from_checkpoint(engine.best_model_path).slots.base_names == tuple(BASE_NAMES)


def test_training_starts_from_clusters_once(tiny_run, tmp_path):
    torch.manual_seed(0)
    settings = {"learning_rate": 0.0, "num_cached_views": 2}
    model, datamodule = build_model(**settings), build_data(tiny_run)
    engine = build_engine(tmp_path, max_epochs=1)
    engine.fit(model, datamodule)
    novel = model.model.heads.weight.detach()[:, len(BASE_NAMES) :].clone()
    expected = cluster_prototypes(*rows_of(model.eval().encode(datamodule))[:2], num_classes=3, num_heads=4)
    torch.testing.assert_close(F.normalize(novel, dim=-1), expected, rtol=1e-4, atol=1e-5)
    # What goes on keeps its prototypes.
    with torch.no_grad():
        model.model.heads.weight.mul_(-1)
    engine.trainer.save_checkpoint(tmp_path / "turned.ckpt")
    again = build_model(**settings)
    build_engine(tmp_path, max_epochs=2).fit(again, build_data(tiny_run), ckpt_path=tmp_path / "turned.ckpt")
    torch.testing.assert_close(again.model.heads.weight.detach()[:, len(BASE_NAMES) :], -novel)


def test_the_papers_contrast_has_a_projector():
    assert build_model().model.projector is None
    assert build_model(contrastive=True).model.projector.mlp[-1].weight.shape == (256, 2048)


def test_losses_on_cached_and_fresh_views_are_near(tiny_run, tmp_path):
    first = []
    for num_cached_views in (8, None):
        record = Record()
        seed_everything(1)
        datamodule = build_data(tiny_run, train_batch_size=8)
        model = build_model(num_cached_views=num_cached_views, contrastive=True, prototypes="random")
        engine = build_engine(tmp_path, max_epochs=1, callbacks=[record])
        engine.fit(model, datamodule)
        assert isinstance(engine.trainer.train_dataloader.dataset, ViewBank) == (num_cached_views is not None)
        first.append(record.losses[0])
    assert first[0] == pytest.approx(first[1], rel=0.2)


@pytest.mark.parametrize("num_cached_views", [None, 2])
def test_a_dinov3_vit_learns_from_kept_and_fresh_views(tiny_run, tmp_path, num_cached_views):
    model = build_model(
        backbone="vit_tiny_patch16_dinov3_qkvb", image_size=64, mask_layers=9, num_cached_views=num_cached_views
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build_engine(tmp_path, max_epochs=1).fit(model, build_data(tiny_run, train_batch_size=8))
    after = model.state_dict()
    changed = {name for name, value in before.items() if name in after and not torch.equal(value, after[name])}
    assert "model.describer.encoder.backbone.blocks.11.attn.qkv.weight" in changed
    assert not any("backbone.blocks.10." in name for name in changed)


def test_cached_views_are_taken_up_again(tiny_run, tmp_path, monkeypatch):
    views = []
    frozen = FrozenFeatures.frozen

    def counted(describer, images, masks):
        views.append(len(images))
        return frozen(describer, images, masks)

    monkeypatch.setattr(FrozenFeatures, "frozen", counted)

    def fit(seed=0, **arguments):
        torch.manual_seed(0)
        views.clear()
        datamodule = build_data(tiny_run, work_dir=tmp_path / "work", seed=seed)
        build_engine(tmp_path, max_epochs=1, **arguments).fit(build_model(num_cached_views=2), datamodule)
        return sum(views)

    described = 12  # novel regions, once per training
    assert fit() == 2 * 20 + described
    assert fit() == described
    assert fit(precision="bf16-mixed") == 2 * 20 + described
    assert fit(seed=1, precision="bf16-mixed") == 2 * 20 + described


def test_a_checkpoint_of_another_model_is_refused(fitted, tiny_run, tmp_path):
    checkpoint = torch.load(fitted.checkpoint, weights_only=True)
    del checkpoint["anomalib_ncd"]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="no checkpoint of AnomalyNcd"):
        AnomalyNcd.load_from_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="no checkpoint of AnomalyNcd"):
        predict(build_model(), build_data(tiny_run), tmp_path, ckpt_path=tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_novel_classes": 5}, "trained with num_novel_classes=3, but the model has 5"),
        ({"training": TrainingSettings(mask_layers=3, num_heads=2)}, "trained with num_heads=4, but the model has 2"),
        ({"backbone": "deit_tiny_patch16_224"}, "trained with backbone='test_vit', but the model has 'deit_tiny"),
    ],
)
def test_a_checkpoint_with_other_sizes_is_refused(fitted, arguments, message):
    with pytest.raises(ValueError, match=message):
        AnomalyNcd.load_from_checkpoint(fitted.checkpoint, **arguments)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt"):
        AnomalyNcd.load_from_checkpoint(tmp_path / "nothing.ckpt")


def test_paths_in_the_arguments_do_no_harm(tiny_run, tmp_path):
    torch.save(build_model().model.describer.encoder.backbone.state_dict(), tmp_path / "vit.pth")
    model = build_model(backbone_weights=tmp_path / "vit.pth")
    engine = build_engine(tmp_path, max_epochs=1)
    engine.fit(model, datamodule=build_data(tiny_run, base=None))
    (tmp_path / "vit.pth").unlink()
    assert AnomalyNcd.load_from_checkpoint(engine.best_model_path).slots.base_names == ()


def test_more_classes_than_regions_are_refused(tiny_run, tmp_path):
    with pytest.raises(ValueError, match=r"`num_novel_classes` is 500, but the images have only \d+ regions"):
        build_engine(tmp_path, max_epochs=1).fit(build_model(num_novel_classes=500), build_data(tiny_run))


def test_another_datamodule_is_refused(tmp_path, tiny_run):
    folder = Folder(name="tiny", root=tiny_run.images, normal_dir="good", abnormal_dir="line", num_workers=0)
    with pytest.raises(TypeError, match=r"needs an anomalib_ncd\.NcdDataModule: engine\.fit"):
        build_engine(tmp_path, max_epochs=1).fit(build_model(), datamodule=folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_novel_classes": 0}, "`num_novel_classes` must be at least 1"),
        ({"num_cached_views": 4, "trainable_blocks": 2}, "`num_cached_views` needs `trainable_blocks=1`, got 2"),
        ({"num_cached_views": 4, "mask_layers": 0}, "keeps what a mask shows: `mask_layers` must be above 0, got 0"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)


def test_regions_are_merged_as_the_settings_say():
    model = build_model(merging_temperature=50)
    assert model.region_merging == RegionMerging(tuple(model.class_names), 0, 50)
    assert build_model().region_merging.temperature is None


def test_predicted_batches_are_not_classified_again(fitted, tiny_run):
    batch = next(iter(build_data(tiny_run).test_dataloader())).without_pixels()
    with pytest.raises(ValueError, match=r"holds no views.*Load the images again"):
        fitted.model.model.classify(batch)


def test_the_metrics_can_be_turned_off():
    model = build_model(evaluator=False)
    assert model.evaluator is None
    assert model.visualizer is None
    assert isinstance(model, LightningModule)


def test_a_detectors_checkpoint_is_refused_before_anything_is_built(tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": {"backbone": "resnet18"}}, tmp_path / "padim.ckpt")
    with pytest.raises(ValueError, match="no checkpoint of AnomalyNcd"):
        AnomalyNcd.load_from_checkpoint(tmp_path / "padim.ckpt")
