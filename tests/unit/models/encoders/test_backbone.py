# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from anomalib_ncd.models.encoders.backbone import build_network, own_image_size, preprocessing_of

DEIT = "deit_tiny_patch16_224"


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
    assert preprocessing_of(build_network(DEIT, pretrained=False))[0] == (0.485, 0.456, 0.406)
    augreg = build_network("vit_tiny_patch16_224", pretrained=False)
    assert preprocessing_of(augreg) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
