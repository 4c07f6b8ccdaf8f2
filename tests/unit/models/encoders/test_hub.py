# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import time

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file

from anomalib_ncd.models.encoders import hub
from anomalib_ncd.models.encoders.backbone import build_network

DEIT = "deit_tiny_patch16_224"


@pytest.fixture
def deit_file(weights_dir):
    return weights_dir / f"{DEIT}.safetensors"


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def no_requests(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a request was made")

    monkeypatch.setattr(hub, "_request", refuse)


def random_deit():
    return timm.create_model(DEIT, pretrained=False, num_classes=0, img_size=32)


def unreachable():
    msg = "403"
    raise OSError(msg)


def test_no_published_weights(empty_cache, no_requests):
    backbone = random_deit()
    backbone.pretrained_cfg = {}
    with pytest.raises(ValueError, match=f"no weights for '{DEIT}'.*backbone_weights"):
        hub.load_published(backbone, DEIT, unreachable)


def test_cached_weights_need_no_request(empty_cache, deit_file, no_requests):
    repository = empty_cache / "models--timm--deit_tiny_patch16_224.fb_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / "model.safetensors").symlink_to(deit_file)
    backbone = build_network(DEIT)
    torch.testing.assert_close(backbone.cls_token.detach(), load_file(deit_file)["cls_token"])


def test_hub_out_of_reach_fails_at_once(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="backbone_weights") as caught:
        build_network(DEIT)
    assert str(empty_cache) in str(caught.value)
    assert "127.0.0.1:9 does not answer" in str(caught.value)


def test_offline_mode_makes_no_request(empty_cache, monkeypatch, no_requests):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match="HF_HUB_OFFLINE"):
        build_network(DEIT)


def test_errors_of_the_download_name_the_way_out(empty_cache, monkeypatch):
    monkeypatch.setattr(hub, "_hub_answers", lambda endpoint: True)
    with pytest.raises(RuntimeError, match=r"403.*backbone_weights"):
        hub.load_published(random_deit(), DEIT, unreachable)


def test_a_hub_whose_name_resolves_slowly_counts_as_silent(monkeypatch):
    monkeypatch.setattr(hub, "_request", lambda endpoint, timeout_s: time.sleep(0.5) or True)
    assert not hub._hub_answers("http://slow", timeout_s=0.02)


@pytest.mark.network
def test_weights_from_the_hub(empty_cache):
    if not hub._hub_answers(huggingface_hub.constants.ENDPOINT):
        pytest.skip("the model hub is out of reach")
    assert build_network(DEIT).cls_token.abs().sum() > 0
