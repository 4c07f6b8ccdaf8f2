# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import inspect

import pytest
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, ParallelScalingBlock, ResPostBlock
from torch import nn

from anomalib_ncd.models.encoders.attention import (
    asks_plainly,
    attended_rows_of_block,
    cls_mask,
    cls_of_block,
    is_plain,
    run_block,
)

VARIANTS = {
    "plain": {},
    "no qkv bias": {"qkv_bias": False},
    "qk norm": {"qk_norm": True},
    "layer scale": {"init_values": 0.3},
    "scaled norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
}


def make_block(block_class=Block, **kwargs):
    torch.manual_seed(0)
    block = block_class(24, num_heads=3, **{"qkv_bias": True, **kwargs})
    for parameter in block.parameters():  # no part may hide behind a zero bias or a unit scale
        nn.init.normal_(parameter, std=0.3)
    return block


def make_input(batch=4, tokens=10):
    generator = torch.Generator().manual_seed(1)
    attended = torch.rand(batch, tokens, generator=generator) > 0.5
    attended[:, 0] = True
    return torch.randn(batch, tokens, 24, generator=generator), attended


def guided_block(block, tokens, attended):
    return run_block(block, tokens, cls_mask(attended, tokens.dtype))


def dense_reference(block, tokens, attended):
    """Attention written out with loops, for a plain block."""
    attn, inputs = block.attn, block.norm1(tokens)
    query, key, value = attn.qkv(inputs).reshape(*tokens.shape[:2], 3, 3, 8).permute(2, 0, 3, 1, 4)
    mixed = torch.zeros_like(query)
    for image in range(len(tokens)):
        for row in range(tokens.shape[1]):
            seen = attended[image] if row == 0 else torch.ones_like(attended[image])
            scores = query[image, :, row, None] @ key[image, :, seen].transpose(1, 2) / 8**0.5
            mixed[image, :, row] = (scores.softmax(-1) @ value[image, :, seen])[:, 0]
    tokens = tokens + attn.proj(mixed.transpose(1, 2).flatten(2))
    return tokens + block.mlp(block.norm2(tokens))


@torch.no_grad()
def test_guided_block_matches_attention_written_out():
    block, (tokens, attended) = make_block(), make_input()
    torch.testing.assert_close(guided_block(block, tokens, attended), dense_reference(block, tokens, attended))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("masked", [True, False])
def test_cls_of_block_is_the_first_row_with_equal_gradients(options, masked):
    if "scale_attn_norm" in options and "scale_attn_norm" not in inspect.signature(Block).parameters:
        pytest.skip("this version of timm has no norm inside its attention")
    block, (tokens, attended) = (
        make_block(**options).double(),
        make_input(),
    )  # so that gradients of 0 are told from noise
    tokens = tokens.double().requires_grad_()
    whole = guided_block(block, tokens, attended if masked else torch.ones_like(attended))[:, :1]
    inputs = [tokens, *block.parameters()]
    expected = torch.autograd.grad(whole.square().sum(), inputs)
    cls = cls_of_block(block, tokens, attended if masked else None)
    torch.testing.assert_close(cls, whole, rtol=1e-10, atol=1e-10)
    for got, want in zip(torch.autograd.grad(cls.square().sum(), inputs), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_single_precision_agrees_to_rounding():
    block, (tokens, attended) = make_block(init_values=0.3), make_input()
    whole = guided_block(block, tokens, attended)[:, :1]
    torch.testing.assert_close(cls_of_block(block, tokens, attended), whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_attention_that_is_not_fused_is_guided_too():
    block, (tokens, attended) = make_block(), make_input()
    fused = guided_block(block, tokens, attended)
    block.attn.fused_attn = False
    torch.testing.assert_close(guided_block(block, tokens, attended), fused)


def test_gate_is_honoured():
    if "gated" not in inspect.signature(Attention).parameters:
        pytest.skip("this version of timm has no gate in its attention")
    block, (tokens, attended) = make_block(), make_input()
    block.attn = Attention(24, num_heads=3, qkv_bias=True, gated=True)
    assert is_plain(block)
    assert not asks_plainly(block)
    torch.testing.assert_close(cls_of_block(block, tokens, attended), guided_block(block, tokens, attended)[:, :1])


@pytest.mark.parametrize("block_class", [ResPostBlock, ParallelScalingBlock])
def test_other_blocks_are_run_whole(block_class):
    block, (tokens, attended) = make_block(block_class), make_input()
    assert not is_plain(block)
    torch.testing.assert_close(cls_of_block(block, tokens, attended), guided_block(block, tokens, attended)[:, :1])
    torch.testing.assert_close(cls_of_block(block, tokens, None), block(tokens)[:, :1])


def test_replaced_projections_are_not_plain():
    class Adapter(nn.Linear):
        pass

    block = make_block()
    assert is_plain(block)
    block.attn.qkv = Adapter(24, 72)
    assert not is_plain(block)


@pytest.mark.parametrize("block_class", [Block, ResPostBlock])
@torch.no_grad()
def test_attended_rows_are_those_of_the_whole_block(block_class):
    block, (tokens, attended) = make_block(block_class, init_values=0.3), make_input()
    whole, rows = guided_block(block, tokens, attended), attended_rows_of_block(block, tokens, attended)
    torch.testing.assert_close(rows[attended], whole[attended])
    assert torch.allclose(rows, whole) == (block_class is not Block)


def test_dropped_weights_drop_the_bias_of_the_values_too():
    class Halved(nn.Module):
        """Drops every second weight, the same ones each time."""

        def forward(self, weights):
            return weights * (torch.arange(weights.shape[-1]) % 2 == 0) * 2

    block, (tokens, _) = make_block(), make_input()
    block.attn.attn_drop = Halved()
    block.attn.fused_attn = False  # timm's own sum then goes through the same module
    torch.testing.assert_close(cls_of_block(block, tokens, None), block(tokens)[:, :1])


def test_dropout_is_active_in_training_only():
    block, (tokens, attended) = make_block(attn_drop=0.5, proj_drop=0.5), make_input()
    block.train()
    assert not torch.equal(cls_of_block(block, tokens, attended), cls_of_block(block, tokens, attended))
    block.eval()
    assert torch.equal(cls_of_block(block, tokens, attended), cls_of_block(block, tokens, attended))
