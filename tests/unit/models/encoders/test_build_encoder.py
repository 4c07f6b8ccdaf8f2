# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from anomalib_ncd.models.encoders import hub
from anomalib_ncd.models.encoders.build_encoder import (
    build_encoder,
    build_encoders,
    build_network,
    own_image_size,
)
from anomalib_ncd.models.encoders.cnn import MaskGuidedCnn
from anomalib_ncd.models.encoders.vit import MaskGuidedVit

DEIT = "deit_tiny_patch16_224"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("image_size", [224, 64])
def test_random_weights_have_no_classifier_and_the_given_size(image_size):
    backbone = build_network(DEIT, pretrained=False, image_size=image_size)
    assert isinstance(backbone, VisionTransformer)
    assert backbone(torch.zeros(1, 3, image_size, image_size)).shape == (1, 192)


@pytest.mark.parametrize(
    ("name", "size"),
    [(DEIT, 224), ("vit_tiny_patch16_384", 384), ("test_vit", 160), ("vit_tiny_patch16_dinov3_qkvb", 256)],
)
def test_the_size_is_the_networks_own_where_none_is_given(name, size):
    assert own_image_size(name) == size
    assert build_network(name, pretrained=False).patch_embed.img_size == (size, size)


def test_weights_come_from_the_file(weights_dir):
    file = weights_dir / f"{DEIT}.safetensors"
    backbone, stored = build_network(DEIT, file), load_file(file)
    for key, value in backbone.state_dict().items():
        torch.testing.assert_close(value, stored[key], rtol=0, atol=0)


def test_position_embeddings_follow_the_image_size(weights_dir):
    assert build_network(DEIT, weights_dir / f"{DEIT}.safetensors", image_size=256).pos_embed.shape == (1, 257, 192)


def test_unknown_name_is_answered_with_near_ones():
    with pytest.raises(ValueError, match="deit_tiny_patch16_224"):
        build_network("deit_tinny_patch16_224")


def test_unknown_tag_is_answered_with_known_ones():
    with pytest.raises(ValueError, match=r"vit_base_patch8_224\.dino'"):
        build_network("vit_base_patch8_224.dyno")


@pytest.mark.parametrize("image_size", [100, 8])
@pytest.mark.parametrize("name", [DEIT, "vit_tiny_patch16_dinov3_qkvb"])
def test_image_size_must_be_whole_patches(name, image_size):
    with pytest.raises(ValueError, match="multiple of the patch size 16"):
        build_network(name, pretrained=False, image_size=image_size)


def test_preprocessing_is_the_backbones_own():
    assert build_encoder(DEIT, pretrained=False).mean == (0.485, 0.456, 0.406)
    augreg = build_encoder("vit_tiny_patch16_224", pretrained=False)
    assert (augreg.mean, augreg.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "kind", "width", "statistics"),
    [
        ("offline", MaskGuidedCnn, 320, HALF),
        ("resnet18", MaskGuidedCnn, 512, IMAGENET),
        ("convnext_atto.d2_in1k", MaskGuidedCnn, 320, IMAGENET),
        (DEIT, MaskGuidedVit, 192, IMAGENET),
    ],
)
def test_each_backbone_gets_its_encoder(name, kind, width, statistics):
    built = build_encoder(name, pretrained=False, image_size=64)
    assert isinstance(built, kind)
    assert built.width == width
    assert built.image_size == 64
    assert (built.mean, built.std) == statistics
    assert built(torch.rand(2, 3, 64, 64), torch.ones(2, 1, 64, 64)).shape == (2, width)


def test_settings_reach_the_vit():
    encoder = build_encoder(DEIT, pretrained=False, mask_layers=5, trainable_blocks=2, empty_mask="cls")
    assert (encoder.mask_layers, encoder.trainable_blocks, encoder.empty_mask) == (5, 2, "cls")


def test_settings_reach_the_cnn():
    encoder = build_encoder("resnet10t", pretrained=False, trainable_blocks=2)
    assert [any(p.requires_grad for p in link.parameters()) for link in encoder.links][-3:] == [False, True, True]


def test_a_cnn_has_no_token_to_see_alone():
    with pytest.raises(ValueError, match="`empty_mask` must be 'region' for the convolutional network 'resnet10t'"):
        build_encoder("resnet10t", pretrained=False, empty_mask="cls")


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_a_cnn_come_from_the_file(tmp_path, wrapped):
    source = timm.create_model("resnet10t", pretrained=False)  # with a classifier, as they are published
    torch.save({"state_dict": source.state_dict()} if wrapped else source.state_dict(), tmp_path / "weights.pth")
    encoder = build_encoder("resnet10t", tmp_path / "weights.pth")
    torch.testing.assert_close(encoder.links[-1].state_dict(), source.layer4.state_dict(), rtol=0, atol=0)


def test_weights_of_another_cnn_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet18.pth")
    for name in ("resnet10t", "resnet34", "tf_efficientnet_lite0"):
        with pytest.raises(ValueError, match=f"resnet18.pth.*do not fit '{name}'"):
            build_encoder(name, tmp_path / "resnet18.pth")


def test_weights_with_more_stages_are_refused(tmp_path):
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save(state | {"layer5.0.conv1.weight": torch.zeros(3)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"layer5\.0\.conv1"):
        build_encoder("resnet18", tmp_path / "more.pth")


def test_missing_file():
    with pytest.raises(FileNotFoundError, match="backbone_weights"):
        build_encoder("resnet10t", "none.pth")


def test_unknown_name():
    with pytest.raises(ValueError, match="resnet18"):
        build_encoder("resnet188")


def test_a_cnn_without_a_hub_fails_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match=r"'resnet18'.*HF_HUB_OFFLINE.*backbone_weights"):
        build_encoder("resnet18")


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_relpos_small_patch16_224"])
def test_networks_of_neither_kind_are_refused(name):
    with pytest.raises(TypeError, match="must be a timm VisionTransformer or one of timm's convolutional networks"):
        build_encoder(name, pretrained=False)


def test_the_offline_backbone_needs_no_wheel_for_random_weights(monkeypatch):
    monkeypatch.setattr(hub, "WHEEL_MODULE", "no_such_wheel")
    build_encoder("offline", pretrained=False)
    with pytest.raises(RuntimeError, match=r"anomalib-ncd\[offline\]"):
        build_encoder("offline")


def test_networks_side_by_side_are_built_in_the_order_of_their_names():
    built = [build_encoders(names, pretrained=False) for names in ("test_vit+resnet10t", "resnet10t+test_vit")]
    assert [[type(one) for one in each] for each in built] == [
        [MaskGuidedVit, MaskGuidedCnn],
        [MaskGuidedCnn, MaskGuidedVit],
    ]


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("test_vit+resnet10t", "a", r"'test_vit\+resnet10t' names 2 networks, `backbone_weights` 'a' 1 files"),
        ("test_vit+test_vit", None, r"'test_vit\+test_vit' names a network twice"),
        ("test_vit+resnet10", None, "timm knows no model called 'resnet10'; did you mean"),
        ("test_vit+", None, "timm knows no model called ''"),
    ],
)
def test_names_and_files_that_do_not_go_together(backbone, weights, message):
    with pytest.raises(ValueError, match=message):
        build_encoders(backbone, weights, pretrained=False)


def test_each_network_has_its_own_file(tmp_path):
    network = timm.create_model("resnet10t", num_classes=0)
    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    [_, built] = build_encoders("offline+resnet10t", f"+{tmp_path / 'resnet.pt'}")
    own = dict(network.named_parameters())["conv1.0.weight"]
    assert any(torch.equal(one, own) for one in built.parameters())
    with pytest.raises(FileNotFoundError, match="gone"):
        build_encoders("test_vit+resnet10t", "gone.pt+", pretrained=False)


def test_example_of_build_encoder():
    built = build_encoder("offline", pretrained=False)
    assert (type(built).__name__, built.width, built.mean) == ("MaskGuidedCnn", 320, (0.5, 0.5, 0.5))
