# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from functools import partial

import numpy as np
import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from anomalib_ncd.models.encoders.attention import cls_mask
from anomalib_ncd.models.encoders.base import Frozen
from anomalib_ncd.models.encoders.build_encoder import build_network
from anomalib_ncd.models.encoders.vit import MaskGuidedVit


def make_vit(vit_class=VisionTransformer, **kwargs):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 0}
    vit = vit_class(**{**sizes, **kwargs})
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vit


def make_encoder(vit=None, **kwargs):
    return MaskGuidedVit(make_vit() if vit is None else vit, **{"mask_layers": 3, **kwargs}).eval()


def make_batch(batch=5, side=32):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, side, side, generator=generator)
    masks = torch.zeros(batch, 1, side, side)
    for index in range(batch):
        masks[index, :, 4 * index : 4 * index + 12, 8:24] = 1
    return images, masks


@pytest.fixture(scope="module")
def reference(golden_dir):
    stored = np.load(golden_dir / "mask_guided_vit.npz")
    vit = VisionTransformer(
        img_size=64,
        patch_size=8,
        embed_dim=48,
        depth=4,
        num_heads=3,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    arrays = {key: torch.from_numpy(stored[key]) for key in stored}
    vit.load_state_dict({key[6:]: value for key, value in arrays.items() if key.startswith("state/")})
    return vit, arrays


@torch.no_grad()
def test_golden_small_vit(reference):
    vit, arrays = reference
    encoder = make_encoder(vit, empty_mask="cls")
    features = encoder(arrays["images"], arrays["masks"])
    torch.testing.assert_close(features, arrays["cls_features"], rtol=0, atol=1e-5)
    full = encoder(arrays["images"], torch.ones_like(arrays["masks"]))
    torch.testing.assert_close(full, arrays["cls_features_full_mask"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_golden_deit_tiny(golden_dir, weights_dir):
    stored = np.load(golden_dir / "mask_guided_deit_tiny.npz")
    backbone = build_network("deit_tiny_patch16_224", weights_dir / "deit_tiny_patch16_224.safetensors")
    encoder = MaskGuidedVit(backbone, mask_layers=int(stored["mask_layers"]), empty_mask="cls").eval()
    generator = torch.Generator().manual_seed(int(stored["generator_seed"]))
    images, masks = torch.randn(4, 3, 224, 224, generator=generator), torch.zeros(4, 1, 224, 224)
    for mask, (top, bottom, left, right) in zip(masks, stored["mask_boxes"], strict=True):
        mask[0, top:bottom, left:right] = 1
    torch.testing.assert_close(encoder(images, masks), torch.from_numpy(stored["cls_features"]), rtol=0, atol=1e-4)


@torch.no_grad()
def test_full_mask_is_the_backbone_itself():
    vit, (images, masks) = make_vit(), make_batch()
    torch.testing.assert_close(make_encoder(vit)(images, torch.ones_like(masks)), vit(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(make_encoder(vit, mask_layers=0)(images, masks), vit(images), rtol=1e-5, atol=1e-5)


def test_attended_tokens_by_hand():
    masks = torch.zeros(1, 1, 32, 32)
    masks[0, 0, 0:8, 0:12] = 1  # all of patch 0, half of patch 1
    masks[0, 0, 8:16, 0:3] = 1  # three eighths of patch 4
    assert make_encoder().attended_tokens(masks).nonzero()[:, 1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.float64])
def test_masks_of_any_type(dtype):
    encoder, (_, masks) = make_encoder(), make_batch()
    assert torch.equal(encoder.attended_tokens(masks.to(dtype)), encoder.attended_tokens(masks))


@pytest.mark.parametrize(
    ("empty_mask", "thin", "empty"), [("region", [0, 1, 5, 9, 13], list(range(17))), ("cls", [0], [0])]
)
def test_thin_and_empty_masks(empty_mask, thin, empty):
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, 0, :, 2:5] = 1  # a scratch, three pixels wide, in the first column of patches
    attended = make_encoder(empty_mask=empty_mask).attended_tokens(masks)
    assert attended[0].nonzero()[:, 0].tolist() == thin
    assert attended[1].nonzero()[:, 0].tolist() == empty


@torch.no_grad()
def test_thin_masks_in_different_places_give_different_features():
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).repeat(2, 1, 1, 1)
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, 0, :, 2:5] = 1
    masks[1, 0, :, 26:29] = 1
    ours, theirs = make_encoder()(image, masks), make_encoder(empty_mask="cls")(image, masks)
    assert (ours[0] - ours[1]).abs().max() > 0.01
    torch.testing.assert_close(theirs[0], theirs[1])


@pytest.mark.parametrize(
    ("vit_class", "options", "prefix"),
    [(VisionTransformer, {"reg_tokens": 4}, 5), (VisionTransformerDistilled, {}, 2)],
)
@torch.no_grad()
def test_other_prefix_tokens_are_always_attended(vit_class, options, prefix):
    encoder = make_encoder(make_vit(vit_class, **options))
    images, masks = make_batch()
    attended = encoder.attended_tokens(masks)
    assert attended.shape == (5, prefix + 16)
    assert attended[:, :prefix].all()
    assert encoder(images, masks).isfinite().all()


@torch.no_grad()
def test_what_cls_cannot_see_in_the_last_block_does_not_matter():
    encoder, (images, masks) = make_encoder(mask_layers=1), make_batch()
    tokens, attended = encoder.frozen(images, masks)
    changed = torch.where(attended[..., None], tokens, torch.randn_like(tokens))
    torch.testing.assert_close(encoder.trained(Frozen(changed, attended)), encoder.trained(Frozen(tokens, attended)))
    changed = torch.where(attended[..., None], torch.randn_like(tokens), tokens)
    assert (encoder.trained(Frozen(changed, attended)) - encoder.trained(Frozen(tokens, attended))).abs().max() > 0.01


@torch.no_grad()
def test_features_do_not_depend_on_the_batch():
    encoder, (images, masks) = make_encoder(), make_batch()
    together = encoder(images, masks)
    alone = torch.cat([encoder(images[i : i + 1], masks[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.flip(0), encoder(images.flip(0), masks.flip(0)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_large_batches_pass_the_trunk_in_parts(monkeypatch):
    encoder, (images, masks) = make_encoder(), make_batch()
    whole, sizes = encoder.frozen(images, masks), []
    encoder.backbone.patch_embed.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr("anomalib_ncd.models.encoders.vit.CPU_TOKENS_PER_PASS", 40)  # two views of 17 tokens
    parts = encoder.frozen(images, masks)
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(parts.tokens, whole.tokens, rtol=1e-5, atol=1e-5)
    assert torch.equal(parts.attended, whole.attended)


@pytest.mark.parametrize("trainable_blocks", [0, 1, 2, 3])
@pytest.mark.parametrize("mask_layers", [0, 1, 3])
@torch.no_grad()
def test_the_cut_between_trunk_and_head_changes_nothing(trainable_blocks, mask_layers):
    images, masks = make_batch()
    expected = make_encoder(mask_layers=mask_layers)(images, masks)
    encoder = make_encoder(mask_layers=mask_layers, trainable_blocks=trainable_blocks)
    torch.testing.assert_close(encoder(images, masks), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trainable_blocks", [0, 1])
@pytest.mark.parametrize("vit_options", [{}, {"reg_tokens": 2}])
@torch.no_grad()
def test_features_of_several_layers_are_cls_and_masked_averages(trainable_blocks, vit_options):
    images, masks = make_batch()
    masks[1] = 0  # averages over everything
    vit = make_vit(depth=4, **vit_options)
    outputs = {}
    for index, block in enumerate(vit.blocks):
        block.register_forward_hook(lambda _, __, output, index=index: outputs.update({index: output}))
    last = make_encoder(vit, trainable_blocks=0)(images, masks)
    first_patch = vit.num_prefix_tokens
    share = masks.view(5, 4, 8, 4, 8).mean(dim=(2, 4)).flatten(1)
    share = torch.where(share >= 0.5, share, 0.0)
    share[1] = 1
    averages = {i: (t[:, first_patch:] * share[..., None]).sum(1) / share.sum(1)[:, None] for i, t in outputs.items()}
    pieces = [last, averages[1], averages[2], outputs[2][:, 0]]
    expected = torch.cat([piece / piece.square().mean(1, keepdim=True).sqrt() for piece in pieces], dim=1)
    encoder = make_encoder(vit, feature_layers=2, trainable_blocks=trainable_blocks)
    assert encoder.width == expected.shape[1] == 4 * 24
    torch.testing.assert_close(encoder(images, masks), expected, rtol=1e-4, atol=1e-5)


def test_features_of_several_layers_train_the_last_block_alone():
    encoder, (images, masks) = make_encoder(make_vit(depth=4), feature_layers=3).train(), make_batch()
    tokens, attended = encoder.frozen(images, masks)
    assert attended[:, : 5 + 1].all()  # a bank keeps what is attended
    encoder.trained(Frozen(tokens.half(), attended)).square()[:, :24].sum().backward()
    assert {name.split(".")[2] for name, p in encoder.named_parameters() if p.grad is not None} == {"3"}


@pytest.mark.parametrize("trainable_blocks", [1, 2])
def test_gradients_reach_the_last_blocks_and_nothing_else(trainable_blocks):
    encoder, (images, masks) = make_encoder(trainable_blocks=trainable_blocks).train(), make_batch()
    encoder(images, masks).square().sum().backward()
    trained = {name.split(".")[2] for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {str(3 - i) for i in range(1, trainable_blocks + 1)}
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_reference_is_the_mean_of_the_attended_patches():
    encoder = make_encoder()
    images, masks = make_batch()
    tokens, attended = encoder.frozen(images, masks)
    for found, rows, chosen in zip(encoder.reference(Frozen(tokens, attended)), tokens, attended, strict=True):
        torch.testing.assert_close(found, rows[1:][chosen[1:]].mean(dim=0))
    with torch.no_grad():
        for parameter in encoder.backbone.blocks[-1].parameters():
            parameter.add_(1)
    assert torch.equal(encoder.reference(encoder.frozen(images, masks)), encoder.reference(Frozen(tokens, attended)))


def test_the_frozen_part_stays_in_evaluation_mode():
    encoder, (images, masks) = make_encoder(make_vit(proj_drop_rate=0.5, pos_drop_rate=0.5)), make_batch()
    encoder.train()
    first, second = encoder.frozen(images, masks), encoder.frozen(images, masks)
    assert torch.equal(first.tokens, second.tokens)
    assert not first.tokens.requires_grad
    assert [block.training for block in encoder.backbone.blocks] == [False, False, True]
    assert not torch.equal(encoder.trained(first), encoder.trained(first))
    assert not encoder.eval().backbone.blocks[2].training


@torch.no_grad()
def test_regions_are_compared_after_two_thirds_of_the_blocks_and_images_after_five_twelfths():
    encoder = make_encoder(trainable_blocks=1, feature_layers=2)
    images, masks = make_batch()
    backbone, attended = encoder.backbone, encoder.attended_tokens(masks)
    embedded = backbone._pos_embed(backbone.patch_embed(images))
    tokens = embedded
    for block in backbone.blocks[:2]:
        tokens = block(tokens, attn_mask=cls_mask(attended, tokens.dtype))
    share = masks.unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(4, 5)).flatten(1)[..., None] * attended[:, 1:, None]
    patches, shares = encoder.region_patches(images, masks)
    torch.testing.assert_close(patches, tokens[:, 1:])
    torch.testing.assert_close(shares, share / share.sum(dim=1, keepdim=True))
    torch.testing.assert_close(encoder.whole_patches(images), backbone.blocks[0](embedded)[:, 1:])


@pytest.mark.parametrize(("trainable_blocks", "blocks"), [(0, 2), (1, 2), (2, 1), (3, 0)])
@torch.no_grad()
def test_only_frozen_blocks_are_compared(trainable_blocks, blocks):
    encoder, (images, masks) = make_encoder(trainable_blocks=trainable_blocks), make_batch()
    tokens = encoder.backbone._pos_embed(encoder.backbone.patch_embed(images))
    for block in encoder.backbone.blocks[:blocks]:
        tokens = block(tokens, attn_mask=cls_mask(encoder.attended_tokens(masks), tokens.dtype))
    torch.testing.assert_close(encoder.region_patches(images, masks)[0], tokens[:, 1:])
    assert encoder.whole_patches(images).shape == (5, 16, 24)


def test_a_backbone_of_few_blocks_is_guided_in_all_of_them():
    assert make_encoder(mask_layers=9).mask_layers == 3
    images, masks = make_batch()
    torch.testing.assert_close(make_encoder(mask_layers=9)(images, masks), make_encoder(mask_layers=3)(images, masks))


def make_eva(**options):
    """A DINOv3 ViT of timm, in small."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 0}
    dinov3 = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "dinov3", "rope_rotate_half": True}
    dinov3 |= {"num_reg_tokens": 4, "use_fc_norm": False, "init_values": 0.1, "dynamic_img_size": True}
    vit = Eva(**{**sizes, **dinov3, "global_pool": "token", **options})
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vit


@pytest.mark.parametrize(
    "options", [{}, {"dynamic_img_size": False}, {"use_rot_pos_emb": False, "use_abs_pos_emb": True}]
)
@torch.no_grad()
def test_full_mask_is_the_backbone_itself_with_rotary_embeddings(options):
    vit, (images, masks) = make_eva(**options), make_batch()
    torch.testing.assert_close(make_encoder(vit)(images, torch.ones_like(masks)), vit.eval()(images))
    assert (make_encoder(vit)(images, masks) - vit(images)).abs().max() > 0.01


@pytest.mark.parametrize("trainable_blocks", [0, 1, 2])
@torch.no_grad()
def test_rotary_embeddings_follow_the_tokens_that_are_kept(trainable_blocks):
    encoder, (images, masks) = make_encoder(make_eva(), trainable_blocks=trainable_blocks, mask_layers=1), make_batch()
    assert encoder(images, masks).shape == (5, 24)
    if trainable_blocks > 1:
        return  # all tokens are needed then
    frozen, features = encoder.frozen(images, masks), encoder(images, masks)
    for index, attended in enumerate(frozen.attended):
        kept = Frozen(frozen.tokens[index : index + 1, attended], torch.ones(1, int(attended.sum()), dtype=torch.bool))
        torch.testing.assert_close(encoder.trained(kept), features[index : index + 1], rtol=1e-4, atol=1e-5)
        half = Frozen(kept.tokens.half(), kept.attended)
        torch.testing.assert_close(encoder.trained(half), features[index : index + 1], rtol=0.05, atol=0.05)


@torch.no_grad()
def test_dinov3_has_features_of_several_layers_and_patches():
    encoder, (images, masks) = make_encoder(make_eva(depth=4), feature_layers=2), make_batch()
    features = encoder(images, masks)
    assert features.shape == (5, encoder.width) == (5, 4 * 24)
    torch.testing.assert_close(features[:1], encoder(images[:1], masks[:1]), rtol=1e-4, atol=1e-5)
    assert encoder.region_patches(images, masks)[0].shape == encoder.whole_patches(images).shape == (5, 16, 24)
    assert encoder.reference(encoder.frozen(images, masks)).shape == (5, 24)


def test_rotary_embeddings_that_differ_between_blocks_are_refused():
    with pytest.raises(TypeError, match="other rotary embeddings in each block"):
        make_encoder(make_eva(rope_type="mixed", rope_rotate_half=False))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_kept_half_precision_tokens(dtype):
    encoder, (images, masks) = make_encoder(), make_batch()
    tokens, attended = encoder.frozen(images, masks)
    features = encoder.trained(Frozen(tokens.to(dtype), attended))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, encoder.trained(Frozen(tokens, attended)), rtol=0.05, atol=0.1)


@torch.no_grad()
def test_half_precision_is_finite_and_close():
    images, masks = make_batch()
    masks[0] = 0
    expected = make_encoder(empty_mask="cls")(images, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = make_encoder(empty_mask="cls")(images, masks)
    pure = make_encoder(empty_mask="cls").bfloat16()(images.bfloat16(), masks)
    for features in (mixed, pure):
        torch.testing.assert_close(features.float(), expected, rtol=0.1, atol=0.25)


def test_sizes_are_told():
    encoder = make_encoder()
    assert (encoder.width, encoder.patch_width, encoder.patch_size, encoder.image_size) == (24, 24, 8, 32)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mask_layers": -1}, "`mask_layers`"),
        ({"trainable_blocks": 4}, "`trainable_blocks`"),
        ({"feature_layers": 0}, "`feature_layers` must be between 1 and 2"),
        ({"feature_layers": 3}, "`feature_layers` must be between 1 and 2"),
        ({"feature_layers": 2, "trainable_blocks": 2}, "train one block at most"),
        ({"empty_mask": "all"}, "`empty_mask` must be one of"),
    ],
)
def test_settings_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        make_encoder(**options)


def test_rectangular_backbones_are_refused():
    with pytest.raises(ValueError, match="square images, got 32 x 64"):
        make_encoder(make_vit(img_size=(32, 64)))


def test_other_networks_are_refused():
    with pytest.raises(TypeError, match="timm VisionTransformer or Eva with a class token"):
        MaskGuidedVit(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("images", "masks", "match"),
    [
        ((2, 3, 32, 32), (2, 32, 32), r"`masks` must have shape.*masks.unsqueeze\(1\)"),
        ((2, 3, 32, 32), (2, 3, 32, 32), r"`masks` must have shape \(B, 1, H, W\)"),
        ((2, 3, 32, 32), (2, 1, 16, 16), "`masks` must be 32 x 32"),
        ((2, 3, 32, 32), (3, 1, 32, 32), "as many as `images`"),
        ((2, 1, 32, 32), (2, 1, 32, 32), r"`images` must have shape \(B, 3, 32, 32\)"),
        ((2, 3, 64, 64), (2, 1, 32, 32), "resize or set `image_size`"),
    ],
)
def test_wrong_shapes(images, masks, match):
    with pytest.raises(ValueError, match=match):
        make_encoder()(torch.zeros(images), torch.zeros(masks))


def test_example_of_mask_guided_vit():
    backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0)
    encoder = MaskGuidedVit(backbone, mask_layers=2)
    assert encoder(torch.rand(4, 3, 32, 32), torch.ones(4, 1, 32, 32)).shape == torch.Size([4, 24])
