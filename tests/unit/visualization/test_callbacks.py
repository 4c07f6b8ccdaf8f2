# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import shutil

import cv2
import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from anomalib.loggers.base import ImageLoggerBase
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning.pytorch.loggers import CSVLogger

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.settings import PAPER_REGIONS
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.visualization import FigureLogger, NcdVisualizer
from anomalib_ncd.visualization import callbacks as callbacks_module
from anomalib_ncd.visualization.drawing import BAND_PX, NORMAL_RGB, PALETTE_RGB

MERGING = RegionMerging(("good part", "scratch", "dent"), 0)
SMALL = {
    "backbone": "test_vit",
    "pretrained": False,
    "training": TrainingSettings(mask_layers=3),
    "num_novel_classes": 3,
    "evaluator": False,
}


@pytest.fixture(scope="module")
def module(tiny_run):
    module = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, regions=PAPER_REGIONS, eval_batch_size=9)
    module.region_table()
    return module


@pytest.fixture
def batch(module):
    """The first nine images; all regions are scratches but those of the second image, which are normal."""
    batch = next(iter(module.test_dataloader()))
    is_normal = batch.region_image_index == 1
    probabilities = torch.tensor([0.2, 0.75, 0.05]).repeat(len(is_normal), 1)
    probabilities[is_normal] = torch.tensor([0.75, 0.2, 0.05])
    # Something was found in each image.
    return batch.update(region_area=batch.region_area.clamp(min=1)).with_predictions(probabilities, MERGING)


def has(picture, colour):
    return bool((np.asarray(picture)[BAND_PX:] == colour).all(axis=2).any())


def test_images_are_drawn_from_their_files(module, batch):
    pictures = NcdVisualizer().visualize(batch.without_pixels(), MERGING, module.region_table())
    assert len(pictures) == 9
    assert all(picture.size == (512, 512 + BAND_PX) for picture in pictures)
    assert [has(picture, PALETTE_RGB[0]) for picture in pictures] == [number != 1 for number in range(9)]
    assert [has(picture, NORMAL_RGB) for picture in pictures] == [number == 1 for number in range(9)]


def test_masks_are_outlined_where_the_regions_are_known(module, batch):
    with_masks = NcdVisualizer().visualize(batch, MERGING, module.region_table())
    without = NcdVisualizer().visualize(batch, MERGING)
    outlined = [not np.array_equal(a, b) for a, b in zip(with_masks, without, strict=True)]
    assert any(outlined)
    assert all(has(picture, PALETTE_RGB[0]) for number, picture in enumerate(without) if number != 1)


def test_normal_regions_can_be_left_out(module, batch):
    pictures = NcdVisualizer(draw_normal=False).visualize(batch, MERGING, module.region_table())
    assert not has(pictures[1], NORMAL_RGB)
    assert has(pictures[0], PALETTE_RGB[0])


def test_sizes_can_be_chosen(module, batch):
    assert NcdVisualizer(side_range_px=(64, 64)).visualize(batch, MERGING)[0].size[0] == 64


def test_there_must_be_predictions(batch):
    with pytest.raises(ValueError, match="holds no predictions"):
        NcdVisualizer().visualize(batch.update(region_class_probabilities=None), MERGING)


def test_other_batches_are_refused():
    with pytest.raises(TypeError, match=r"draws what AnomalyNcd predicts, got ImageBatch"):
        NcdVisualizer().on_test_batch_end(None, None, ImageBatch(image=torch.zeros(1, 3, 8, 8)), None, 0)


def test_the_model_takes_it_as_anomalibs_do():
    assert AnomalyNcd(**SMALL).visualizer is None
    assert isinstance(AnomalyNcd(**SMALL, visualizer=True).visualizer, NcdVisualizer)
    own = NcdVisualizer(draw_normal=False)
    assert AnomalyNcd(**SMALL, visualizer=own).visualizer is own
    assert isinstance(own, Visualizer)
    assert not isinstance(own, ImageVisualizer)


def test_engine_leaves_a_picture_per_image(module, tmp_path):
    model = AnomalyNcd(**SMALL, visualizer=NcdVisualizer(side_range_px=(128, 128)))
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    engine.test(model, datamodule=module)
    [folder] = tmp_path.rglob("images")
    expected = sorted(f"{record.key}.png" for record in module.records)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == expected
    assert cv2.imread(str(folder / expected[0])).shape[1] == 128


def test_without_the_datamodule_the_last_folder_names_the_picture(module, own_tiny_run, tmp_path):
    model = AnomalyNcd(**SMALL, visualizer=NcdVisualizer(tmp_path / "pictures", side_range_px=(64, 64)))
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    engine.test(model, datamodule=module)
    model.score_range.copy_(torch.tensor(module.fitted_score_range))  # as if it had been fitted
    shutil.rmtree(tmp_path / "pictures")
    others = NcdDataModule(own_tiny_run.images, own_tiny_run.anomaly_maps)
    others.prepare_for(model.inputs)
    engine.predict(model, dataloaders=others.test_dataloader())  # the engine still holds the datamodule of other images
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 18
    assert (tmp_path / "pictures" / "line" / "000.png").is_file()


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
def labelled_module(tiny_run):
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


def test_test_and_prediction_log_their_figures(labelled_module, tmp_path):
    model, logger = AnomalyNcd(**SMALL), FakeImageLogger(tmp_path)
    engine = engine_with(logger, tmp_path)
    engine.test(model, datamodule=labelled_module)
    model.score_range.copy_(torch.tensor(labelled_module.fitted_score_range))  # as if it had been fitted
    names = set(logger.images)
    assert {"test/gallery.png", "test/confusion.png", "test/map.png"} <= names
    classes = {name for name in names if name.startswith("test/classes/")}
    assert classes
    assert classes <= {f"test/classes/{name}.png" for name in model.class_names}
    assert len(names) == 3 + len(classes)
    assert logger.num_saved
    gallery = logger.images["test/gallery.png"]
    logger.images = {}
    engine.predict(model, datamodule=labelled_module)
    assert set(logger.images) == {name.replace("test/", "predict/") for name in names}
    np.testing.assert_array_equal(logger.images["predict/gallery.png"], gallery)
    assert len(figure_loggers(engine)) == 1
    assert figure_loggers(engine)[0].batches == []


def test_names_of_the_user_are_on_the_figures(labelled_module, tmp_path):
    model, logger = AnomalyNcd(**SMALL), FakeImageLogger(tmp_path)
    model.class_names = ["Kratzer: 1", "Kratzer: 1", "Kratzer: 1"]
    engine_with(logger, tmp_path).test(model, datamodule=labelled_module)
    assert "test/classes/Kratzer_ 1.png" in logger.images


def test_a_callback_of_the_user_stays_in_force(labelled_module, tmp_path):
    logger, own = FakeImageLogger(tmp_path), FigureLogger(draw_map=False)
    engine = engine_with(logger, tmp_path, own)
    engine.test(AnomalyNcd(**SMALL), datamodule=labelled_module)
    assert figure_loggers(engine) == [own]
    assert "test/gallery.png" in logger.images
    assert "test/map.png" not in logger.images


def test_without_the_datamodule_there_are_no_crops(labelled_module, own_tiny_run, tmp_path):
    model, logger = AnomalyNcd(**SMALL), FakeImageLogger(tmp_path)
    engine = engine_with(logger, tmp_path)
    engine.test(model, datamodule=labelled_module)
    model.score_range.copy_(torch.tensor(labelled_module.fitted_score_range))  # as if it had been fitted
    others = NcdDataModule(own_tiny_run.images, own_tiny_run.anomaly_maps, labels="folders")
    others.prepare_for(model.inputs)
    for one in (engine, engine_with(logger, tmp_path)):  # the first still holds the datamodule of other images
        logger.images = {}
        one.predict(model, dataloaders=others.test_dataloader())
        assert set(logger.images) == {"predict/map.png"}


@pytest.mark.parametrize("logger", ["csv", "none"])
def test_without_such_a_logger_nothing_is_drawn_or_kept(labelled_module, tmp_path, monkeypatch, logger):
    monkeypatch.setattr(callbacks_module, "run_figures", lambda *args: pytest.fail("drawn for nobody"))
    engine = engine_with(CSVLogger(tmp_path) if logger == "csv" else False, tmp_path)
    engine.test(AnomalyNcd(**SMALL), datamodule=labelled_module)
    assert figure_loggers(engine)[0].batches == []


def test_unknown_features_and_too_many_regions_leave_the_map_out(labelled_module, monkeypatch):
    batch = next(iter(labelled_module.test_dataloader())).without_pixels()
    positions = callbacks_module._positions
    assert positions([]) is None
    assert positions([batch]) is None
    batch.update(region_feature=torch.randn(len(batch.region_area), 5))
    assert positions([batch]).shape == (len(batch.region_area), 2)
    assert positions([batch, batch.without_pixels().update(region_feature=None)]) is None
    monkeypatch.setattr(callbacks_module, "MAX_MAPPED_REGIONS", 2)
    assert positions([batch]) is None


def test_tensorboard_gets_the_pictures(labelled_module, tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard, which anomalib[loggers] brings")
    from anomalib.loggers import AnomalibTensorBoardLogger  # noqa: PLC0415
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    logger = AnomalibTensorBoardLogger(str(tmp_path))
    engine_with(logger, tmp_path).test(AnomalyNcd(**SMALL), datamodule=labelled_module)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    assert {"test/gallery.png", "test/confusion.png", "test/map.png"} <= set(events.Tags()["images"])
    [stored] = events.Images("test/map.png")
    picture = cv2.imdecode(np.frombuffer(stored.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (700, 900, 3)
