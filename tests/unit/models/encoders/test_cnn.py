# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import timm
import torch
from torch import nn

from anomalib_ncd.models.encoders.base import Frozen
from anomalib_ncd.models.encoders.cnn import MaskGuidedCnn, chain_of, has_convolution, masked_average

SIDE = 64


def network(name):
    return timm.create_model(name, pretrained=False, num_classes=0)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto", "regnety_002", "densenet121"])
def test_the_chain_gives_the_networks_feature_maps(name):
    backbone = network(name).eval()
    images = torch.randn(2, 3, 96, 96)
    scales = [info["module"] for info in backbone.feature_info]
    maps, found = images, []
    with torch.no_grad():
        for path, module in chain_of(backbone).items():
            maps = module(maps)
            if path in scales:
                found.append(maps)
        expected = backbone.forward_intermediates(images, intermediates_only=True)
    assert len(found) == len(backbone.feature_info)
    torch.testing.assert_close(found, expected)


def test_links_without_convolution_are_no_stages():
    modules = chain_of(network("resnet18")).values()
    assert [has_convolution(module) for module in modules] == [True, False, False, False, True, True, True, True]


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


def make_backbone(name="resnet10t"):
    torch.manual_seed(0)
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    generator = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # other than what a batch would give
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 10)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)  # timm starts residual branches at zero
    return backbone


def make_encoder(name="resnet10t", **settings):
    return MaskGuidedCnn(make_backbone(name), image_size=SIDE, **settings).eval()


def make_batch(batch=4):
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(batch, 3, SIDE, SIDE, generator=generator)
    masks = torch.zeros(batch, 1, SIDE, SIDE)
    for index in range(batch):
        masks[index, :, 4 * index : 4 * index + 30, 8:40] = 1
    return images, masks


def average_by_hand(maps, mask):
    """One image: maps (C, h, w), mask (H, W)."""
    step = mask.shape[0] // maps.shape[1]
    total, weight = torch.zeros(maps.shape[0]), 0.0
    for row in range(maps.shape[1]):
        for column in range(maps.shape[2]):
            share = mask[row * step : (row + 1) * step, column * step : (column + 1) * step].mean().item()
            total += share * maps[:, row, column]
            weight += share
    return total / weight


@pytest.mark.parametrize("feature_layers", [1, 2, 3])
@pytest.mark.parametrize("trainable_blocks", [0, 1, 2, 4])
def test_features_are_averages_over_the_mask(feature_layers, trainable_blocks):
    images, masks = make_batch(2)
    backbone = make_backbone().eval()
    with torch.no_grad():
        maps = backbone.forward_intermediates(images, intermediates_only=True)[-feature_layers:]
        encoder = MaskGuidedCnn(
            backbone, image_size=SIDE, trainable_blocks=trainable_blocks, feature_layers=feature_layers
        ).eval()
        features = encoder(images, masks)
    for index in range(2):
        parts = [average_by_hand(scale[index], masks[index, 0]) for scale in maps]
        expected = torch.cat([part / part.norm() for part in parts])
        expected = expected / expected.square().mean().sqrt()
        torch.testing.assert_close(features[index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feature_layers", [1, 3])
def test_the_reference_is_the_average_of_the_last_frozen_map(feature_layers):
    images, masks = make_batch(2)
    backbone = make_backbone().eval()
    encoder = MaskGuidedCnn(backbone, image_size=SIDE, feature_layers=feature_layers).eval()
    with torch.no_grad():
        maps = backbone.forward_intermediates(images, intermediates_only=True)[-2]
        found = encoder.reference(encoder.frozen(images, masks))
    for index in range(2):
        torch.testing.assert_close(found[index], average_by_hand(maps[index], masks[index, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto"])
def test_width_of_the_feature(name):
    encoder = make_encoder(name, feature_layers=2)
    features = encoder(*make_batch())
    assert features.shape == (4, encoder.width)
    torch.testing.assert_close(features.square().mean(dim=1), torch.ones(4))
    assert encoder.image_size == SIDE


@torch.no_grad()
def test_stages_of_one_resolution_count_apart():
    backbone = timm.create_model("efficientnet_lite0", pretrained=False)
    encoder = MaskGuidedCnn(backbone, image_size=SIDE, feature_layers=2)
    stages = backbone.blocks
    assert encoder.width == sum(stage[-1].conv_pwl.out_channels for stage in stages[-2:])


@pytest.mark.parametrize("feature_layers", [1, 4])
def test_tokens_may_be_kept_in_half_precision(feature_layers):
    encoder = make_encoder(feature_layers=feature_layers)
    tokens, attended = encoder.frozen(*make_batch())
    assert attended.all()
    assert attended.shape == tokens.shape[:2]
    torch.testing.assert_close(
        encoder.trained(Frozen(tokens.half(), attended)),
        encoder.trained(Frozen(tokens, attended)),
        rtol=2e-2,
        atol=2e-2,
    )


def test_pixels_far_from_the_mask_do_not_matter():
    images, masks = torch.randn(1, 3, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    masks[:, :, :16, :16] = 1
    changed = images.clone()
    changed[:, :, 48:, 48:] += 5
    encoder = make_encoder(trainable_blocks=0, feature_layers=5)
    early = slice(0, 64 + 64)  # the first two scales, whose fields of view are small
    torch.testing.assert_close(encoder(images, masks)[:, early], encoder(changed, masks)[:, early])
    assert not torch.allclose(encoder(images, masks)[:, 128:], encoder(changed, masks)[:, 128:])


def test_a_thin_mask_counts_and_an_empty_one_means_everything():
    images, masks = make_batch(3)
    masks.zero_()
    masks[0, :, 10, 5:50] = 1  # one pixel thin
    masks[2] = 1
    features = make_encoder()(images[:1].expand(3, -1, -1, -1), masks)
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    torch.testing.assert_close(features[1], features[2])


def test_features_do_not_depend_on_the_batch_even_in_training():
    images, masks = make_batch()
    encoder = make_encoder().train()
    torch.testing.assert_close(encoder(images, masks)[1:2], encoder(images[1:2], masks[1:2]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(images, masks), encoder.eval()(images, masks))


def test_only_the_last_stage_is_trained():
    encoder = make_encoder(feature_layers=3).train()
    encoder(*make_batch()).square().mul(torch.rand(encoder.width)).sum().backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in trained} == {str(len(encoder.links) - 1)}
    assert any(name.endswith("bn1.weight") for name in trained)


def test_a_step_leaves_the_statistics_of_batch_norms():
    encoder = make_encoder(trainable_blocks=2).train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(*make_batch()).sum().backward()
    for name, value in encoder.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_modes():
    encoder = make_encoder().train()
    assert [link.training for link in encoder.links] == [False] * (len(encoder.links) - 1) + [True]
    assert not any(module.training for module in encoder.modules() if isinstance(module, nn.BatchNorm2d))


def test_links_without_weights_count_with_the_stage_before():
    encoder = make_encoder("densenet121")  # ends with a lone norm
    assert sum(parameter.requires_grad for parameter in encoder.links[-2].parameters()) > 10
    assert all(parameter.requires_grad for parameter in encoder.links[-1].parameters())


def test_a_state_survives_the_round_trip():
    encoder, other = make_encoder(), MaskGuidedCnn(timm.create_model("resnet10t", pretrained=False), image_size=SIDE)
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other.eval()(*make_batch()), encoder(*make_batch()))


def test_masks_of_other_types():
    images, masks = make_batch()
    encoder = make_encoder()
    torch.testing.assert_close(encoder(images, masks.bool()), encoder(images, masks))


def test_an_exported_graph_takes_any_number_of_regions():
    encoder = make_encoder(feature_layers=3)
    images, masks = make_batch(4)
    masks[3] = 0
    batch = torch.export.Dim("batch", min=1, max=16)
    graph = torch.export.export(encoder, (images[:2], masks[:2]), dynamic_shapes=({0: batch}, {0: batch})).module()
    torch.testing.assert_close(graph(images, masks), encoder(images, masks))


@pytest.mark.parametrize(("trainable_blocks", "frozen_maps"), [(0, 5), (1, 4), (2, 3)])
@torch.no_grad()
def test_places_of_the_map_that_the_trained_stages_start_from_are_compared(trainable_blocks, frozen_maps):
    backbone = make_backbone().eval()
    encoder = MaskGuidedCnn(backbone, image_size=SIDE, trainable_blocks=trainable_blocks, feature_layers=2).eval()
    images, masks = make_batch()
    masks[3] = 0
    maps = backbone.forward_intermediates(images, intermediates_only=True)[frozen_maps - 1]
    patches, share = encoder.region_patches(images, masks)
    torch.testing.assert_close(patches, maps.flatten(2).mT)
    assert encoder.patch_width == patches.shape[2]
    step = SIDE // maps.shape[2]
    wanted = masks.unfold(2, step, step).unfold(3, step, step).mean(dim=(4, 5)).flatten(1)[..., None]
    wanted[3] = 1  # all of them, where the mask is empty
    torch.testing.assert_close(share, wanted)
    assert torch.equal(encoder.whole_patches(images), patches)


@torch.no_grad()
def test_many_regions_pass_in_parts(monkeypatch):
    encoder, batch = make_encoder(feature_layers=3), make_batch()
    whole = encoder(*batch)
    monkeypatch.setattr("anomalib_ncd.models.encoders.cnn.VIEWS_PER_PASS", 3)
    torch.testing.assert_close(encoder(*batch), whole, rtol=1e-4, atol=1e-5)


def test_no_region():
    images, masks = make_batch()
    encoder = make_encoder(feature_layers=3)
    assert encoder(images[:0], masks[:0]).shape == (0, encoder.width)


def test_sizes_that_do_not_divide():
    encoder = MaskGuidedCnn(make_backbone(), image_size=90, feature_layers=3).eval()
    assert encoder(torch.rand(2, 3, 90, 90), torch.ones(2, 1, 90, 90)).isfinite().all()


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("trainable_blocks", 6, "between 0 and 5"),
        ("trainable_blocks", -1, "got -1"),
        ("feature_layers", 0, "between 1 and 5"),
    ],
)
def test_settings_out_of_range(setting, value, expected):
    with pytest.raises(ValueError, match=f"`{setting}` must be.*{expected}|`{setting}`.*got {value}"):
        make_encoder(**{setting: value})


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ((2, 1, SIDE, SIDE), (2, 1, SIDE, SIDE), r"`images` must have shape \(B, 3, 64, 64\)"),
        ((2, 3, 32, 32), (2, 1, SIDE, SIDE), "resize or set `image_size`"),
        ((2, 3, SIDE, SIDE), (2, SIDE, SIDE), r"masks.unsqueeze\(1\)"),
        ((2, 3, SIDE, SIDE), (2, 3, SIDE, SIDE), "one channel per mask"),
        ((2, 3, SIDE, SIDE), (2, 1, 32, 32), "64 x 64 pixels"),
        ((2, 3, SIDE, SIDE), (3, 1, SIDE, SIDE), "got 3 and 2"),
    ],
)
def test_shapes_that_do_not_fit(images, masks, message):
    with pytest.raises(ValueError, match=message):
        make_encoder().frozen(torch.zeros(images), torch.zeros(masks))


def test_average_is_weighted_by_the_share():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]).expand(3, 2, 2, 2)
    share = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.25], [0.0, 0.75]], [[0.0, 0.0], [0.0, 0.0]]])[:, None]
    expected = torch.tensor([1.0, 3.5, 2.5])[:, None].expand(3, 2)
    torch.testing.assert_close(masked_average(maps, share), expected)


def test_average_of_half_precision_does_not_overflow():
    maps = torch.full((1, 2, 56, 56), 60.0, dtype=torch.float16)
    average = masked_average(maps, torch.ones(1, 1, 56, 56, dtype=torch.float16))
    torch.testing.assert_close(average, torch.full((1, 2), 60.0))


def test_example_of_mask_guided_cnn():
    encoder = MaskGuidedCnn(timm.create_model("resnet10t", pretrained=False), image_size=64, feature_layers=2)
    assert encoder(torch.rand(4, 3, 64, 64), torch.ones(4, 1, 64, 64)).shape == torch.Size([4, 768])
