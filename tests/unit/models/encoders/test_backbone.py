# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import time

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from anomalib_ncd.models.encoders import backbone as backbone_module
from anomalib_ncd.models.encoders.backbone import build_backbone, preprocessing_of, require_vit

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

    monkeypatch.setattr(backbone_module, "_request", refuse)


def small_vit(**kwargs):
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0, **kwargs)


@pytest.mark.parametrize("image_size", [224, 64])
def test_random_weights_have_no_classifier_and_the_given_size(image_size):
    backbone = build_backbone(DEIT, pretrained=False, image_size=image_size)
    assert isinstance(backbone, VisionTransformer)
    assert backbone(torch.zeros(1, 3, image_size, image_size)).shape == (1, 192)


def test_weights_come_from_the_file(deit_file, no_requests):
    backbone = build_backbone(DEIT, deit_file)
    stored = load_file(deit_file)
    for key, value in backbone.state_dict().items():
        torch.testing.assert_close(value, stored[key], rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".bin"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_pytorch_files_are_read_too(tmp_path, suffix, wrapped):
    source = build_backbone(DEIT, pretrained=False, image_size=64)
    path = tmp_path / f"weights{suffix}"
    torch.save({"model": source.state_dict()} if wrapped else source.state_dict(), path)
    backbone = build_backbone(DEIT, str(path), image_size=64)
    torch.testing.assert_close(backbone.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)


def test_position_embeddings_follow_the_image_size(deit_file):
    assert build_backbone(DEIT, deit_file, image_size=256).pos_embed.shape == (1, 257, 192)


@pytest.mark.parametrize(
    "name", ["deit_small_patch16_224", "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224"]
)
def test_weights_of_another_network_are_refused(deit_file, name):
    with pytest.raises(ValueError, match=rf"{DEIT}.safetensors.*do not fit '{name}'"):
        build_backbone(name, deit_file)


@pytest.mark.parametrize("change", ["missing", "foreign"])
def test_weights_with_missing_or_foreign_keys_are_refused(tmp_path, change):
    state = build_backbone(DEIT, pretrained=False, image_size=32).state_dict()
    if change == "missing":
        del state["blocks.11.mlp.fc2.bias"]
    else:
        state["blocks.12.mlp.fc2.bias"] = torch.zeros(192)
    torch.save(state, tmp_path / "changed.pth")
    with pytest.raises(ValueError, match=r"blocks\.1[12]\.mlp\.fc2\.bias"):
        build_backbone(DEIT, tmp_path / "changed.pth", image_size=32)


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    (tmp_path / "notes.pth").write_text("not weights")
    with pytest.raises(ValueError, match="do not fit"):
        build_backbone(DEIT, tmp_path / "notes.pth")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="backbone_weights"):
        build_backbone(DEIT, tmp_path / "none.pth")


def test_unknown_name_is_answered_with_near_ones():
    with pytest.raises(ValueError, match="deit_tiny_patch16_224"):
        build_backbone("deit_tinny_patch16_224")


def test_unknown_tag_is_answered_with_known_ones():
    with pytest.raises(ValueError, match=r"vit_base_patch8_224\.dino'"):
        build_backbone("vit_base_patch8_224.dyno")


@pytest.mark.parametrize("name", ["resnet18", "vit_relpos_small_patch16_224"])
def test_other_networks_are_refused(name):
    with pytest.raises(TypeError, match="only ViTs"):
        build_backbone(name, pretrained=False)


def test_a_vit_without_class_token_is_refused():
    with pytest.raises(TypeError, match="has no class token"):
        require_vit(small_vit(class_token=False, global_pool="avg"), "gap")


@pytest.mark.parametrize("image_size", [100, 8])
def test_image_size_must_be_whole_patches(image_size):
    with pytest.raises(ValueError, match="multiple of the patch size 16"):
        build_backbone(DEIT, pretrained=False, image_size=image_size)


def test_no_published_weights(empty_cache, no_requests):
    backbone = build_backbone(DEIT, pretrained=False, image_size=32)
    backbone.pretrained_cfg = {}
    with pytest.raises(ValueError, match=f"no weights for '{DEIT}'.*backbone_weights"):
        backbone_module._load_published(backbone, DEIT, 32)


def test_cached_weights_need_no_request(empty_cache, deit_file, no_requests):
    repository = empty_cache / "models--timm--deit_tiny_patch16_224.fb_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / "model.safetensors").symlink_to(deit_file)
    backbone = build_backbone(DEIT)
    torch.testing.assert_close(backbone.cls_token.detach(), load_file(deit_file)["cls_token"])


def test_hub_out_of_reach_fails_at_once(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="backbone_weights") as caught:
        build_backbone(DEIT)
    assert str(empty_cache) in str(caught.value)
    assert "127.0.0.1:9 does not answer" in str(caught.value)


def test_offline_mode_makes_no_request(empty_cache, monkeypatch, no_requests):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match="HF_HUB_OFFLINE"):
        build_backbone(DEIT)


def test_errors_of_the_download_name_the_way_out(empty_cache, monkeypatch):
    backbone = build_backbone(DEIT, pretrained=False)

    def fail(*args, **kwargs):
        msg = "403"
        raise OSError(msg)

    monkeypatch.setattr(backbone_module, "_hub_answers", lambda endpoint: True)
    monkeypatch.setattr(backbone_module.timm, "create_model", fail)
    with pytest.raises(RuntimeError, match=r"403.*backbone_weights"):
        backbone_module._load_published(backbone, DEIT, 224)


def test_a_hub_whose_name_resolves_slowly_counts_as_silent(monkeypatch):
    monkeypatch.setattr(backbone_module, "_request", lambda endpoint, timeout_s: time.sleep(0.5) or True)
    assert not backbone_module._hub_answers("http://slow", timeout_s=0.02)


@pytest.mark.network
def test_weights_from_the_hub(empty_cache):
    if not backbone_module._hub_answers(huggingface_hub.constants.ENDPOINT):
        pytest.skip("the model hub is out of reach")
    assert build_backbone(DEIT).cls_token.abs().sum() > 0


def test_preprocessing_is_the_backbones_own():
    assert preprocessing_of(build_backbone(DEIT, pretrained=False))[0] == (0.485, 0.456, 0.406)
    augreg = build_backbone("vit_tiny_patch16_224", pretrained=False)
    assert preprocessing_of(augreg) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
