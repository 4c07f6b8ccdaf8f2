# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import timm
import torch
from torch import nn

from anomalib_ncd.models.encoders.cnn_stages import chain_of


def network(name):
    return timm.create_model(name, pretrained=False, num_classes=0)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto", "regnety_002", "densenet121"])
def test_the_chain_gives_the_networks_feature_maps(name):
    backbone = network(name).eval()
    images = torch.randn(2, 3, 96, 96)
    maps, found = images, []
    with torch.no_grad():
        for link in chain_of(backbone):
            maps = link.module(maps)
            if link.is_scale:
                found.append(maps)
        expected = backbone.forward_intermediates(images, intermediates_only=True)
    assert len(found) == len(backbone.feature_info)
    torch.testing.assert_close(found, expected)


def test_links_without_convolution_are_no_stages():
    links = chain_of(network("resnet18"))
    assert [link.has_weights for link in links] == [True, False, False, False, True, True, True, True]


def test_the_mode_of_the_network_is_left_as_it_is():
    backbone = network("resnet10t")
    statistics = backbone.bn1.running_mean.clone()
    chain_of(backbone)
    assert backbone.training
    torch.testing.assert_close(backbone.bn1.running_mean, statistics, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "hrnet_w18_small", "vit_relpos_small_patch16_224"])
def test_networks_that_are_no_chain_are_refused(name):
    with pytest.raises(TypeError, match="stages follow one another, got "):
        chain_of(network(name))


def test_other_modules_are_refused():
    with pytest.raises(TypeError, match="got Sequential"):
        chain_of(nn.Sequential(nn.Conv2d(3, 4, 3)))
