# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""MEBin in anomalib's Engine and command line, on a detector whose anomaly map is the image's first channel."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib import LearningType
from anomalib.callbacks import TilerConfigurationCallback
from anomalib.cli import AnomalibCLI
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Padim, Patchcore
from anomalib.post_processing import PostProcessor
from torch import nn
from torch.utils.data import DataLoader

from anomalib_ncd import MEBin
from anomalib_ncd.post_processing import MEBinBatch, masks_at_file_size
from anomalib_ncd.regions.mebin import binarize, fit_score_range

SIZE = 64


class FirstChannel(nn.Module):
    """A network whose anomaly map is known."""

    def forward(self, images):
        anomaly_map = images[:, :1]
        return InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map)


class FirstChannelDetector(AnomalibModule):
    learning_type = LearningType.ONE_CLASS
    trainer_arguments = {}  # noqa: RUF012

    def __init__(self, **components):
        super().__init__(pre_processor=False, visualizer=False, evaluator=False, **components)
        self.model = FirstChannel()

    def validation_step(self, batch, *args, **kwargs):
        return batch.update(**self.model(batch.image)._asdict())


def blob_maps(peaks, seed):
    rng = np.random.default_rng(seed)
    maps = rng.uniform(0, 0.05, (len(peaks), SIZE, SIZE)).astype(np.float32)
    for anomaly_map, peak in zip(maps, peaks, strict=True):
        anomaly_map[10:30, 20:40] = peak
    return maps


def loader(maps, batch_size=2, **kwargs):
    labels = [torch.tensor(int(anomaly_map.max() > 0.3)) for anomaly_map in maps]
    masks = [torch.from_numpy(anomaly_map > 0.3) for anomaly_map in maps]
    items = [
        ImageItem(image=torch.from_numpy(np.repeat(anomaly_map[None], 3, 0)), gt_label=label, gt_mask=mask)
        for anomaly_map, label, mask in zip(maps, labels, masks, strict=True)
    ]
    return DataLoader(items, batch_size=batch_size, collate_fn=ImageBatch.collate, **kwargs)


def make_engine(folder, **kwargs):
    return Engine(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        max_epochs=1,
        **kwargs,
    )


VALIDATION = blob_maps([0.1, 0.5, 0.9], seed=0)
IMAGES = blob_maps([0.3, 0.05, 0.7, 2.0, 0.09], seed=1)


def assert_masks(batches, score_range):
    index = 0
    for batch in batches:
        assert isinstance(batch, MEBinBatch)
        for item in batch:
            expected = binarize(IMAGES[index], score_range)
            np.testing.assert_array_equal(item.pred_mask.numpy(), expected.mask)
            assert float(item.threshold) == expected.threshold
            assert int(item.num_anomalies) == expected.num_components
            index += 1
    assert index == len(IMAGES)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_range_fitted_on_validation_set(tmp_path, batch_size):
    model, engine = FirstChannelDetector(post_processor=MEBin()), make_engine(tmp_path)
    engine.validate(model, dataloaders=loader(VALIDATION))
    batches = engine.predict(model, dataloaders=loader(IMAGES, batch_size))
    assert_masks(batches, fit_score_range(VALIDATION))
    assert [int(count) for batch in batches for count in batch.num_anomalies] == [1, 0, 1, 1, 0]


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("kwargs", [{}, {"num_workers": 1, "persistent_workers": True}])
def test_range_fitted_on_predicted_set(tmp_path, batch_size, kwargs):
    model = FirstChannelDetector(post_processor=MEBin(score_range="predict"))
    batches = make_engine(tmp_path).predict(model, dataloaders=loader(IMAGES, batch_size, **kwargs))
    assert_masks(batches, fit_score_range(IMAGES))


def test_range_fitted_on_all_predicted_loaders(tmp_path):
    model = FirstChannelDetector(post_processor=MEBin(score_range="predict"))
    make_engine(tmp_path).predict(model, dataloaders=[loader(IMAGES[:2]), loader(IMAGES[2:])])
    assert model.post_processor.settings.score_range == fit_score_range(IMAGES)


def test_range_fitted_on_limited_set(tmp_path):
    model = FirstChannelDetector(post_processor=MEBin(score_range="predict"))
    make_engine(tmp_path, limit_predict_batches=2).predict(model, dataloaders=loader(IMAGES, 1))
    assert model.post_processor.settings.score_range == fit_score_range(IMAGES[:2])


def test_range_fitted_on_tested_set(tmp_path):
    model = FirstChannelDetector(post_processor=MEBin(score_range="predict"))
    make_engine(tmp_path).test(model, dataloaders=loader(IMAGES))
    assert model.post_processor.settings.score_range == fit_score_range(IMAGES)


def test_range_by_hand(tmp_path):
    model = FirstChannelDetector(post_processor=MEBin(score_range=(0.2, 0.8)))
    assert_masks(make_engine(tmp_path).predict(model, dataloaders=loader(IMAGES)), (0.2, 0.8))


def test_never_fitted_warns(tmp_path, caplog):
    model = FirstChannelDetector(post_processor=MEBin())
    with caplog.at_level(logging.WARNING):
        batches = make_engine(tmp_path).predict(model, dataloaders=loader(IMAGES))
    assert "score range was never fitted" in caplog.text
    assert min(int(count) for batch in batches for count in batch.num_anomalies) == 1


def make_padim(**kwargs):
    pre_processor = Padim.configure_pre_processor((SIZE, SIZE))
    return Padim(backbone="resnet18", pre_trained=False, pre_processor=pre_processor, **kwargs)


def test_train_visualise_checkpoint_and_reload(tmp_path, datamodule):
    model, engine = make_padim(post_processor=MEBin(erosion_size=3)), make_engine(tmp_path)
    metrics = engine.train(model, datamodule=datamodule)
    assert set(metrics[0]) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    assert len(list(tmp_path.rglob("images/**/*.png"))) == 6
    batches = engine.predict(model, datamodule=datamodule)
    assert torch.cat([batch.pred_mask for batch in batches]).any()
    assert [mask.shape for batch in batches for mask in masks_at_file_size(batch)] == [(SIZE, SIZE)] * 6

    ckpt_path = engine.best_model_path
    restored = Padim.load_from_checkpoint(ckpt_path, post_processor=MEBin(), pre_trained=False)
    assert restored.post_processor.settings == model.post_processor.settings
    for candidate, path in ((restored, None), (make_padim(post_processor=MEBin()), ckpt_path)):
        again = make_engine(tmp_path).predict(candidate, datamodule=datamodule, ckpt_path=path)
        for old, new in zip(batches, again, strict=True):
            assert torch.equal(old.pred_mask, new.pred_mask)
            assert torch.equal(old.threshold, new.threshold)
    with pytest.raises(RuntimeError, match="mebin_score_range"):
        Padim.load_from_checkpoint(ckpt_path, pre_trained=False)


def test_checkpoint_of_the_default_post_processor_is_fitted_by_validate(tmp_path, datamodule):
    engine = make_engine(tmp_path)
    engine.fit(make_padim(post_processor=PostProcessor()), datamodule=datamodule)
    model = make_padim(post_processor=MEBin())
    make_engine(tmp_path).validate(model, datamodule=datamodule, ckpt_path=engine.best_model_path)
    assert model.post_processor.settings.score_range is not None


def test_tiled_detector(tmp_path, datamodule):
    model = make_padim(post_processor=MEBin(erosion_size=2))
    engine = make_engine(tmp_path, callbacks=[TilerConfigurationCallback(enable=True, tile_size=32, stride=32)])
    engine.fit(model, datamodule=datamodule)
    batches = engine.predict(model, datamodule=datamodule)
    settings = model.post_processor.settings
    model.eval()
    with torch.no_grad():
        for batch in batches:
            for raw, mask in zip(model.model(batch.image).anomaly_map, batch.pred_mask, strict=True):
                expected = binarize(raw.squeeze().numpy(), settings.score_range, erosion_size=2)
                np.testing.assert_array_equal(mask.numpy(), expected.mask)


CONFIG = Path(__file__).parents[2] / "configs" / "mebin" / "patchcore.yaml"


def run_anomalib(command, generated, folder, *arguments):
    data = {"root": str(generated.root), "abnormal_dir": "test/hole", "num_workers": "0", "train_batch_size": "4"}
    words = [word for key, value in data.items() for word in (f"--data.{key}", value)]
    return AnomalibCLI([command, *arguments, *words, "--default_root_dir", str(folder), "--trainer.accelerator", "cpu"])


def test_config_file(tmp_path, generated):
    small = ["--model.backbone", "resnet18", "--model.pre_trained", "false"]
    cli = run_anomalib("train", generated, tmp_path, "--config", str(CONFIG), *small)
    assert isinstance(cli.model, Patchcore)
    assert isinstance(cli.model.post_processor, MEBin)
    assert cli.model.post_processor.settings.score_range is not None
    assert list(tmp_path.rglob("images/**/*.png"))


def test_command_line_flags(tmp_path, generated):
    flags = ["--model", "Padim", "--model.pre_trained", "false", "--model.post_processor", "anomalib_ncd.MEBin"]
    folder = ["--data", "Folder", "--data.name", "generated", "--data.normal_dir", "train/good"]
    options = ["--model.post_processor.erosion_size", "3", "--model.post_processor.score_range", "[1, 9.5]"]
    cli = run_anomalib("fit", generated, tmp_path, *flags, *options, *folder)
    assert isinstance(cli.model.post_processor, MEBin)
    assert cli.model.post_processor.settings.erosion_size == 3
    assert cli.model.post_processor.settings.score_range == (1.0, 9.5)
