# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Mask-guided attention in timm's transformer blocks (AnomalyNCD, Huang et al., CVPR 2025, mask-guided representation).

Only the CLS row of the attention is restricted; all other rows see every token. Masks are boolean or
minus infinity, so that they mean the same in every precision.
"""

from typing import Any, TypeAlias

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

# timm builds the parts of a block from arguments and declares no types for them.
BlockLike: TypeAlias = Any


def is_plain(block: BlockLike) -> bool:
    """Whether a block is timm's standard one, whose parts may be called apart.

    Args:
        block: A block of a timm Vision Transformer.

    Returns:
        ``False`` for parallel, post-norm or differential variants and for replaced (adapter) projections.
    """
    return type(block) is Block and type(block.attn) is Attention and type(block.attn.qkv) is nn.Linear


def guided_block(block: BlockLike, tokens: Tensor, attended: Tensor) -> Tensor:
    """Run a block on all tokens; CLS looks only at the attended ones.

    Args:
        block: A block of a timm Vision Transformer.
        tokens: Tokens (B, N, D), CLS first.
        attended: Boolean (B, N); ``True`` where CLS may look, at least once per row.

    Returns:
        Tokens (B, N, D).
    """
    other_rows = torch.arange(tokens.shape[1], device=tokens.device) > 0
    mask = attended[:, None, None, :] | other_rows[:, None]
    if not getattr(getattr(block, "attn", block), "fused_attn", True):
        # Outside of fused attention, some versions of timm add the mask to the scores, boolean or not.
        mask = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~mask, -torch.inf)
    return block(tokens, attn_mask=mask)


def cls_of_block(block: BlockLike, tokens: Tensor, attended: Tensor | None) -> Tensor:
    """CLS after a block, without the rows that nobody reads when the block is the last.

    The query, the output projection and the MLP are computed for CLS alone; keys and values for all tokens, or in
    training for the attended ones, a fraction of them.

    Args:
        block: A block of a timm Vision Transformer.
        tokens: Tokens (B, N, D), CLS first.
        attended: Boolean (B, N), ``True`` where CLS may look; ``None`` lets it look everywhere.

    Returns:
        The CLS token (B, 1, D); the same, up to rounding, as the first row of the whole block.
    """
    if not is_plain(block):
        whole = block(tokens) if attended is None else guided_block(block, tokens, attended)
        return whole[:, :1]
    attn, cls_input = block.attn, block.norm1(tokens[:, :1])
    visible = attended if block.training else None  # picking tokens would give an exported graph data-dependent shapes
    width = attn.qkv.out_features // 3
    query = attn.q_norm(_split_heads(attn, _part_of_qkv(attn.qkv, cls_input, slice(None, width))))
    key, value = _keys_and_values(block, tokens, visible)
    mixed = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if attended is None else attended[:, None, None, :],
        dropout_p=attn.attn_drop.p if attn.training else 0.0,
    )
    output = attn.norm(mixed.transpose(1, 2).flatten(2))
    gate = getattr(attn, "gate", None)  # only newer versions of timm have it
    if gate is not None:
        output = output * gate(cls_input).sigmoid()
    cls = tokens[:, :1] + block.drop_path1(block.ls1(attn.proj_drop(attn.proj(output))))
    return cls + block.drop_path2(block.ls2(block.mlp(block.norm2(cls))))


def _keys_and_values(block: BlockLike, tokens: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys and values (B, heads, N, head_dim); zeros, which the mask hides, for tokens that aren't ``visible``."""
    attn, rest = block.attn, slice(block.attn.qkv.out_features // 3, None)
    if visible is None:
        key_value = _part_of_qkv(attn.qkv, block.norm1(tokens), rest)
    else:
        places = visible.flatten().nonzero().squeeze(1)
        picked = block.norm1(tokens.flatten(0, 1).index_select(0, places))
        picked = _part_of_qkv(attn.qkv, picked, rest)
        key_value = picked.new_zeros(visible.numel(), picked.shape[1]).index_copy(0, places, picked)
        key_value = key_value.unflatten(0, visible.shape)
    key, value = (_split_heads(attn, part) for part in key_value.chunk(2, dim=-1))
    return attn.k_norm(key), value


def _part_of_qkv(qkv: nn.Linear, inputs: Tensor, rows: slice) -> Tensor:
    """Some of the outputs of the joint projection to queries, keys and values."""
    return F.linear(inputs, qkv.weight[rows], None if qkv.bias is None else qkv.bias[rows])


def _split_heads(attn: Attention, tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
