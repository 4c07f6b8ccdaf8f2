# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.models import lightning_model
from anomalib_ncd.models.clustering.number_of_classes import NumClassesEstimate
from anomalib_ncd.models.torch_model import AnomalyNcdModel
from anomalib_ncd.runs import cluster as cluster_discovery
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.settings import TrainingSettings

FOUR = NumClassesEstimate(4, 3, 5, [(3, 0.2), (4, 0.5), (5, 0.4)], "a method")
SEVEN = NumClassesEstimate(7, 7, 7, [], "a method")


def build_model(**arguments):
    return AnomalyNcd(
        **{"backbone": "test_vit", "pretrained": False, "training": TrainingSettings(mask_layers=3)} | arguments
    )


def build_data(run, **arguments):
    return NcdDataModule(run.images, run.anomaly_maps, **arguments)


def fit(model, run, folder, ckpt_path=None, max_epochs=1):
    engine = Engine(
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        max_epochs=max_epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    engine.fit(model, datamodule=build_data(run), ckpt_path=ckpt_path)
    return Path(engine.best_model_path)


@pytest.fixture
def estimates(monkeypatch):
    """Features that the number of classes was estimated from; the estimate is 4."""
    seen = []

    def estimate(features, seed=0):
        seen.append(np.asarray(features))
        return FOUR

    monkeypatch.setattr(lightning_model, "estimate_num_classes", estimate)
    monkeypatch.setattr(cluster_discovery, "estimate_num_classes", estimate)
    return seen


@pytest.fixture(scope="module")
def checkpoint(tiny_run, tmp_path_factory):
    """Checkpoint of a model that found four classes, after an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning_model, "estimate_num_classes", lambda *_, **__: FOUR)
        return fit(build_model(), tiny_run, tmp_path_factory.mktemp("auto"))


def test_the_number_is_unknown_at_first_and_that_is_said(tiny_run, tmp_path):
    model = build_model()
    assert model.slots.num_novel is None
    assert build_model(num_novel_classes=6).slots.num_novel == 6
    for ask in (lambda: model.slots.num_classes, lambda: model.class_names):
        with pytest.raises(ValueError, match=r"is 'auto' and not known yet.*load a checkpoint, or give a number"):
            ask()
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="not known yet"):
        engine.predict(model, datamodule=build_data(tiny_run))


def test_a_model_that_was_tested_too_early_can_be_fitted(tiny_run, tmp_path, estimates):
    model = build_model()
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="not known yet"):
        engine.test(model, datamodule=build_data(tiny_run, base=tiny_run.base, labels="folders"))
    fit(model, tiny_run, tmp_path)
    assert model.model.heads.weight.shape == (4, 4, 64)
    assert model.slots.base_names == ()


def test_training_estimates_before_the_optimizer_is_made(tiny_run, tmp_path, estimates, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    model = build_model()
    before = None
    original = model.setup

    def setup(stage):
        nonlocal before
        original(stage)
        before = model.model.heads.weight.detach().clone()

    model.setup = setup
    fit(model, tiny_run, tmp_path)
    [features] = estimates
    assert features.shape == (len(build_data(tiny_run).region_table()), 64)
    assert model.slots.num_novel == 4
    assert model.class_names == ["normal", "class_1", "class_2", "class_3"]
    assert model.model.heads.weight.shape == before.shape == (4, 4, 64)
    assert not torch.equal(model.model.heads.weight, before)  # the heads that learn are those of the model
    assert "4 classes, normal included, were estimated (3 to 5" in caplog.text


def test_the_checkpoint_holds_plain_numbers(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)["anomalib_ncd"]
    assert saved["slots"]["num_novel"] == 4
    assert saved["num_classes_estimate"] == {
        "count": 4,
        "low": 3,
        "high": 5,
        "curve": [[3, 0.2], [4, 0.5], [5, 0.4]],
        "method": "a method",
    }


@pytest.mark.parametrize("arguments", [{}, {"num_novel_classes": "auto"}, {"num_novel_classes": 4}])
def test_the_checkpoint_loads_with_the_default_and_with_its_number(checkpoint, arguments):
    model = AnomalyNcd.load_from_checkpoint(checkpoint, **arguments)
    assert model.slots.num_novel == 4
    assert model.num_classes_estimate == FOUR
    assert model.model.heads.weight.shape == (4, 4, 64)


def test_the_checkpoint_does_not_load_with_another_number(checkpoint):
    with pytest.raises(ValueError, match="trained with num_novel_classes=4, but the model has 5"):
        AnomalyNcd.load_from_checkpoint(checkpoint, num_novel_classes=5)


def test_training_that_goes_on_keeps_the_number(checkpoint, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(lightning_model, "estimate_num_classes", lambda *_, **__: SEVEN)
    model = build_model()
    fit(model, tiny_run, tmp_path, ckpt_path=checkpoint, max_epochs=2)
    assert model.slots.num_novel == 4
    assert model.num_classes_estimate == FOUR
    assert model.model.heads.weight.shape == (4, 4, 64)


def test_a_known_number_is_not_estimated(tiny_run, estimates):
    model = build_model(num_novel_classes=2)
    model.settle_num_classes(build_data(tiny_run))
    assert estimates == []
    assert model.slots.num_novel == 2
    assert model.num_classes_estimate is None


def test_clustering_estimates_from_the_features_it_clusters(tiny_run, estimates, monkeypatch):
    passes = []
    original = AnomalyNcdModel.describe
    monkeypatch.setattr(AnomalyNcdModel, "describe", lambda *args: passes.append(1) or original(*args))
    model = build_model()
    [batch] = discover_by_clustering(model, build_data(tiny_run))
    assert len(passes) == 1
    assert len(estimates) == 1
    # Good images have no region: they are normal, one class more than there are clusters.
    assert model.class_names == ["normal", "class_1", "class_2", "class_3", "class_4"]
    assert batch.class_probabilities.shape == (18, 5)


def test_a_pass_over_the_regions_leaves_no_trace(tiny_run):
    model = build_model().train()
    module = build_data(tiny_run, eval_batch_size=5)
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    model.settle_num_classes(module)
    encoded = model.encode(module)
    assert model.encode(module)[0].region_feature is encoded[0].region_feature  # one pass, however often asked for
    features = torch.cat([batch.region_feature for batch in encoded])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[name], equal_nan=True)
    expected = torch.cat([model.eval().model.describe(batch).feature for batch in module.test_dataloader()])
    torch.testing.assert_close(features, expected.detach(), atol=1e-5, rtol=0)
