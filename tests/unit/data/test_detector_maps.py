# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import logging
import os

import cv2
import numpy as np
import pytest
import timm
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Padim
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Resize

from anomalib_ncd.data.detector_maps import load_detector, predict_anomaly_maps
from anomalib_ncd.regions.reading.listing import ImageFile, list_images


def untrained_detector():
    return Padim(
        backbone="resnet18",
        pre_trained=False,
        layers=["layer1"],
        n_features=10,
        pre_processor=PreProcessor(Resize((64, 64))),
    )


@pytest.fixture(scope="module")
def fitted(tiny_run, tmp_path_factory):
    """A small detector fitted to the good images, and its checkpoint."""
    torch.manual_seed(0)
    datamodule = Folder(
        name="tiny",
        root=tiny_run.images,
        normal_dir="good",
        abnormal_dir=["line", "square"],
        train_batch_size=4,
        eval_batch_size=4,
        num_workers=0,
    )
    detector = untrained_detector()
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=tmp_path_factory.mktemp("detector"))
    engine.fit(detector, datamodule=datamodule)
    return detector, engine.best_model_path


@pytest.fixture(scope="module")
def images(tiny_run):
    return list_images(tiny_run.images)


def computed(caplog):
    return [record.args[0] for record in caplog.records if record.msg.startswith("Predicting %d anomaly maps")]


def test_every_image_gets_a_float_map_under_its_name(fitted, images, tmp_path):
    paths = predict_anomaly_maps(fitted[0], images, tmp_path, device="cpu")
    assert [path.relative_to(tmp_path).with_suffix("").as_posix() for path in paths] == [r.key for r in images]
    maps = {image.key: np.load(path) for image, path in zip(images, paths, strict=True)}
    assert json.loads((tmp_path / "settings.json").read_text())["bit_depth"] == 16
    for anomaly_map in maps.values():
        assert anomaly_map.dtype == np.float32
        assert anomaly_map.shape == (64, 64)
        assert np.isfinite(anomaly_map).all()
    good, bad = ([m.max() for key, m in maps.items() if key.startswith("good") == kind] for kind in (True, False))
    assert np.mean(bad) > np.mean(good)
    assert not list(tmp_path.rglob("*.tmp.npy"))


def test_maps_are_raw_scores(fitted, images, tmp_path):
    detector = fitted[0]
    [path] = predict_anomaly_maps(detector, images[-1:], tmp_path, device="cpu")
    loader = torch.utils.data.DataLoader([torch.from_numpy(_pixels(images[-1]))])
    detector.eval()
    with torch.no_grad():
        expected = detector.model(detector.pre_processor(next(iter(loader)))).anomaly_map
    np.testing.assert_allclose(np.load(path), expected[0, 0], rtol=1e-4, atol=1e-5)


def test_batch_size_does_not_matter(fitted, images, tmp_path):
    ones = predict_anomaly_maps(fitted[0], images, tmp_path / "1", batch_size=1, device="cpu")
    sevens = predict_anomaly_maps(fitted[0], images, tmp_path / "7", batch_size=7, device="cpu")
    for one, seven in zip(ones, sevens, strict=True):
        np.testing.assert_allclose(np.load(one), np.load(seven), rtol=1e-4, atol=1e-5)


def test_components_come_back(fitted, images, tmp_path):
    detector = fitted[0]
    before = {name: getattr(detector, name) for name in ("pre_processor", "post_processor", "evaluator", "visualizer")}
    assert all(before.values())
    predict_anomaly_maps(detector, images[:1], tmp_path, device="cpu")
    assert all(getattr(detector, name) is component for name, component in before.items())


def test_components_come_back_after_an_error(fitted, tmp_path):
    detector = fitted[0]
    before = detector.post_processor
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        predict_anomaly_maps(detector, [ImageFile(tmp_path / "gone.png", "gone")], tmp_path, device="cpu")
    assert before is not None
    assert detector.post_processor is before


def test_only_missing_maps_are_computed(fitted, images, tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    paths = predict_anomaly_maps(fitted[0], images, tmp_path, device="cpu")
    untouched = paths[0].stat().st_mtime_ns
    for path in paths[3:8]:
        path.unlink()
    assert predict_anomaly_maps(fitted[0], images, tmp_path, device="cpu") == paths
    assert predict_anomaly_maps(fitted[0], images, tmp_path, device="cpu") == paths
    assert computed(caplog) == [18, 5]
    assert all(path.is_file() for path in paths)
    assert paths[0].stat().st_mtime_ns == untouched


def test_maps_of_a_replaced_image_are_computed_again(fitted, own_tiny_run, tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    images = list_images(own_tiny_run.images)[:4]
    predict_anomaly_maps(fitted[0], images, tmp_path, device="cpu")
    images[2].path.write_bytes(images[3].path.read_bytes())
    os.utime(images[2].path, ns=(7, 7))  # an older file in its place
    predict_anomaly_maps(fitted[0], images, tmp_path, device="cpu")
    predict_anomaly_maps(fitted[0], images, tmp_path, bit_depth=12, device="cpu")
    assert computed(caplog) == [4, 1, 4]


def test_maps_of_another_detector_are_forgotten(fitted, images, tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    paths = predict_anomaly_maps(fitted[0], images, tmp_path, device="cpu")
    before = np.load(paths[0])
    other = load_detector(Padim, fitted[1])
    with torch.no_grad():
        other.model.gaussian.mean += 1
    predict_anomaly_maps(other, images[:2], tmp_path, device="cpu")
    assert computed(caplog) == [18, 2]
    assert [path.is_file() for path in paths] == [True] * 2 + [False] * 16
    assert not np.array_equal(np.load(paths[0]), before)


def test_a_checkpoint_gives_the_same_maps(fitted, images, tmp_path):
    ours = predict_anomaly_maps(fitted[0], images[:3], tmp_path / "a", device="cpu")
    loaded = predict_anomaly_maps(load_detector(Padim, fitted[1]), images[:3], tmp_path / "b", device="cpu")
    for one, other in zip(ours, loaded, strict=True):
        np.testing.assert_allclose(np.load(one), np.load(other), rtol=1e-4, atol=1e-5)


def test_detectors_load_without_a_hub(fitted, monkeypatch):
    original, asked = timm.create_model, []

    def create_model(*args, pretrained=False, **kwargs):
        asked.append(pretrained)
        return original(*args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", create_model)
    detector = load_detector(Padim, fitted[1])
    assert isinstance(detector, Padim)
    assert asked
    assert not any(asked)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no detector checkpoint .*nothing\.ckpt"):
        load_detector(Padim, tmp_path / "nothing.ckpt")


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "NaN or infinite.*was it fitted"), (None, "no anomaly")])
def test_useless_maps_are_refused(fitted, images, tmp_path, value, message):
    detector = load_detector(Padim, fitted[1])
    original = detector.model.forward

    def forward(pixels):
        output = original(pixels)
        return output._replace(anomaly_map=None if value is None else output.anomaly_map * value)

    detector.model.forward = forward
    with pytest.raises(ValueError, match=message):
        predict_anomaly_maps(detector, images[:2], tmp_path, device="cpu")


def _pixels(record):
    return cv2.imread(str(record.path))[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255


def test_the_map_of_a_changed_image_is_predicted_again(fitted, own_tiny_run, tmp_path, caplog):
    images = list_images(own_tiny_run.images)[:3]
    with caplog.at_level(logging.INFO):
        paths = predict_anomaly_maps(fitted[0], images, tmp_path / "maps", device="cpu")
        later = paths[1].stat().st_mtime + 5
        os.utime(images[1].path, (later, later))
        predict_anomaly_maps(fitted[0], images, tmp_path / "maps", device="cpu")
    assert computed(caplog) == [3, 1]
