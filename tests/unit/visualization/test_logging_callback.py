# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from anomalib.loggers.base import ImageLoggerBase
from lightning.pytorch.loggers import CSVLogger

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.visualization import FigureLogger
from anomalib_ncd.visualization import logging_callback as logging_callback_module

SMALL = {
    "backbone": "test_vit",
    "pretrained": False,
    "training": TrainingSettings(mask_layers=3),
    "num_novel_classes": 3,
    "evaluator": False,
}


class FakeImageLogger(ImageLoggerBase, CSVLogger):
    """Keeps what it is given, as strictly as anomalib's loggers together."""

    def __init__(self, folder):
        super().__init__(folder)
        self.images, self.num_saved = {}, 0

    def add_image(self, image, name=None, **kwargs):
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert isinstance(kwargs["global_step"], int)  # TensorBoard
        assert name.endswith(".png")  # MLflow
        self.images[name] = image

    def save(self):
        self.num_saved += 1


@pytest.fixture(scope="module")
def module(tiny_run):
    return NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, labels="folders", eval_batch_size=9)


def engine_with(logger, folder, *callbacks):
    return Engine(
        callbacks=list(callbacks),
        accelerator="cpu",
        devices=1,
        logger=logger,
        default_root_dir=folder,
        enable_progress_bar=False,
    )


def figure_loggers(engine):
    return [callback for callback in engine.trainer.callbacks if isinstance(callback, FigureLogger)]


def test_test_and_prediction_log_their_figures(module, tmp_path):
    model, logger = AnomalyNcd(**SMALL), FakeImageLogger(tmp_path)
    engine = engine_with(logger, tmp_path)
    engine.test(model, datamodule=module)
    model.score_range.copy_(torch.tensor(module.fitted_score_range))  # as if it had been fitted
    names = set(logger.images)
    assert {"test/gallery.png", "test/confusion.png", "test/map.png"} <= names
    classes = {name for name in names if name.startswith("test/classes/")}
    assert classes
    assert classes <= {f"test/classes/{name}.png" for name in model.class_names}
    assert len(names) == 3 + len(classes)
    assert logger.num_saved
    gallery = logger.images["test/gallery.png"]
    logger.images = {}
    engine.predict(model, datamodule=module)
    assert set(logger.images) == {name.replace("test/", "predict/") for name in names}
    np.testing.assert_array_equal(logger.images["predict/gallery.png"], gallery)
    assert len(figure_loggers(engine)) == 1
    assert figure_loggers(engine)[0].batches == []


def test_names_of_the_user_are_on_the_figures(module, tmp_path):
    model, logger = AnomalyNcd(**SMALL), FakeImageLogger(tmp_path)
    model.class_names = ["Kratzer: 1", "Kratzer: 1", "Kratzer: 1"]
    engine_with(logger, tmp_path).test(model, datamodule=module)
    assert "test/classes/Kratzer_ 1.png" in logger.images


def test_a_callback_of_the_user_stays_in_force(module, tmp_path):
    logger, own = FakeImageLogger(tmp_path), FigureLogger(draw_map=False)
    engine = engine_with(logger, tmp_path, own)
    engine.test(AnomalyNcd(**SMALL), datamodule=module)
    assert figure_loggers(engine) == [own]
    assert "test/gallery.png" in logger.images
    assert "test/map.png" not in logger.images


def test_without_the_datamodule_there_are_no_crops(module, own_tiny_run, tmp_path):
    model, logger = AnomalyNcd(**SMALL), FakeImageLogger(tmp_path)
    engine = engine_with(logger, tmp_path)
    engine.test(model, datamodule=module)
    model.score_range.copy_(torch.tensor(module.fitted_score_range))  # as if it had been fitted
    others = NcdDataModule(own_tiny_run.images, own_tiny_run.anomaly_maps, labels="folders")
    others.prepare_for(model.inputs)
    for one in (engine, engine_with(logger, tmp_path)):  # the first still holds the datamodule of other images
        logger.images = {}
        one.predict(model, dataloaders=others.test_dataloader())
        assert set(logger.images) == {"predict/map.png"}


@pytest.mark.parametrize("logger", ["csv", "none"])
def test_without_such_a_logger_nothing_is_drawn_or_kept(module, tmp_path, monkeypatch, logger):
    monkeypatch.setattr(logging_callback_module, "run_figures", lambda *args: pytest.fail("drawn for nobody"))
    engine = engine_with(CSVLogger(tmp_path) if logger == "csv" else False, tmp_path)
    engine.test(AnomalyNcd(**SMALL), datamodule=module)
    assert figure_loggers(engine)[0].batches == []


def test_unknown_features_and_too_many_regions_leave_the_map_out(module, monkeypatch):
    batch = next(iter(module.test_dataloader())).without_pixels()
    positions = logging_callback_module._positions
    assert positions([]) is None
    assert positions([batch]) is None
    batch.update(region_feature=torch.randn(len(batch.region_area), 5))
    assert positions([batch]).shape == (len(batch.region_area), 2)
    assert positions([batch, batch.without_pixels().update(region_feature=None)]) is None
    monkeypatch.setattr(logging_callback_module, "MAX_MAPPED_REGIONS", 2)
    assert positions([batch]) is None


def test_tensorboard_gets_the_pictures(module, tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard, which anomalib[loggers] brings")
    from anomalib.loggers import AnomalibTensorBoardLogger  # noqa: PLC0415
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    logger = AnomalibTensorBoardLogger(str(tmp_path))
    engine_with(logger, tmp_path).test(AnomalyNcd(**SMALL), datamodule=module)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    assert {"test/gallery.png", "test/confusion.png", "test/map.png"} <= set(events.Tags()["images"])
    [stored] = events.Images("test/map.png")
    picture = cv2.imdecode(np.frombuffer(stored.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (700, 900, 3)
