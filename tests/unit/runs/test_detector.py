# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from anomalib.models import Padim, Patchcore

from anomalib_ncd.models import offline_detector
from anomalib_ncd.models.encoders.hub import WHEEL_MODULE
from anomalib_ncd.models.offline_detector import SmallPatchcore
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.runs import detector
from anomalib_ncd.runs.detector import build_default_detector, device_of, fit_detector
from anomalib_ncd.runs.folder import MadeFrom, claim_folder
from anomalib_ncd.settings import DETECTOR_FILE


def test_the_device_is_lightnings_choice():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type in {"cpu", "cuda", "mps", "xpu"}
    with pytest.raises(ValueError, match="abacus"):
        device_of("abacus")


@pytest.fixture
def good_images(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(3):
        write_image(tmp_path / "good" / f"{index}.png", rng.integers(90, 110, (64, 64, 3), dtype=np.uint8))
    return list_images(tmp_path / "good")


@pytest.fixture
def small_memory(monkeypatch):
    """Let the detector choose few patches, which it does one by one."""
    monkeypatch.setattr(offline_detector, "MAX_MEMORY", 20)


def untrained():
    torch.manual_seed(0)
    options = {"pre_trained": False, "evaluator": False, "visualizer": False}
    return SmallPatchcore("resnet18", ("layer2", "layer3"), **options)


def test_what_is_kept_is_what_was_fitted_and_loads_as_anomalibs_own(good_images, tmp_path):
    network = untrained()
    fitted = fit_detector(network, good_images, tmp_path / "run", accelerator="cpu")
    assert type(fitted) is Patchcore
    assert len(fitted.model.memory_bank) == 2000
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(fitted.eval()(image).anomaly_map, network.eval().cpu()(image).anomaly_map)
    assert {path.name for path in (tmp_path / "run" / "detector").iterdir()} == {"model.ckpt", "made_from.json"}


def test_it_is_fitted_again_only_for_other_images_or_settings(small_memory, good_images, tmp_path):
    fit_detector(untrained(), good_images, tmp_path, accelerator="cpu")
    made = (tmp_path / DETECTOR_FILE).stat().st_mtime_ns
    fit_detector(untrained(), good_images, tmp_path, accelerator="cpu")
    assert (tmp_path / DETECTOR_FILE).stat().st_mtime_ns == made
    fit_detector(untrained(), good_images[:2], tmp_path, accelerator="cpu")
    again = (tmp_path / DETECTOR_FILE).stat().st_mtime_ns
    assert again != made
    other = Padim(pre_trained=False, layers=["layer3"], n_features=10, evaluator=False, visualizer=False)
    assert type(fit_detector(other, good_images, tmp_path, accelerator="cpu")) is Padim


def test_what_is_refused_leaves_the_detector_alone(small_memory, good_images, tmp_path, monkeypatch):
    def refuse():
        raise ZeroDivisionError

    fit_detector(untrained(), good_images, tmp_path, accelerator="cpu")
    monkeypatch.setattr(detector, "Engine", None)
    fit_detector(untrained(), good_images, tmp_path, accelerator="cpu", check=refuse)
    with pytest.raises(ZeroDivisionError):
        fit_detector(untrained(), good_images[:2], tmp_path, accelerator="cpu", check=refuse)


def test_a_model_of_clusters_goes_with_its_detector(small_memory, good_images, tmp_path):
    fit_detector(untrained(), good_images[:2], tmp_path, accelerator="cpu")
    claim_folder(tmp_path, MadeFrom({"method": "cluster"}, {}))
    (tmp_path / "model.ckpt").touch()
    fit_detector(untrained(), good_images[:2], tmp_path, accelerator="cpu")
    assert (tmp_path / "model.ckpt").is_file()
    fit_detector(untrained(), good_images, tmp_path, accelerator="cpu")
    assert not (tmp_path / "model.ckpt").exists()  # so that nothing is classified with one of each until then


def test_many_good_images_are_drawn_from(small_memory, good_images, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(detector, "MAX_GOOD_IMAGES", 2)
    with caplog.at_level("INFO", "anomalib_ncd"):
        fit_detector(untrained(), good_images, tmp_path, accelerator="cpu")
    assert "on 2 of 3 good images" in caplog.text


def test_without_any_weights_the_error_names_the_ways_out(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError(*args, kwargs)

    monkeypatch.setattr(detector, "find_spec", lambda name: None)
    monkeypatch.setattr(detector, "SmallPatchcore", unreachable)
    with pytest.raises(RuntimeError, match=r"No weights.*anomalib-ncd\[offline\].*--anomaly_maps.*ckpt_path"):
        build_default_detector()


def test_the_default_is_small_and_offline():
    pytest.importorskip(WHEEL_MODULE, reason="needs the extra [offline]")
    assert build_default_detector().hparams["backbone"] == "tf_efficientnet_lite0"
