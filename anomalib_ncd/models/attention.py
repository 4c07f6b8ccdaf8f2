# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Mask-guided attention in timm's transformer blocks (AnomalyNCD, Huang et al., CVPR 2025, mask-guided representation).

Only the CLS row of the attention is restricted; all other rows see every token. So one unmasked attention for all rows
and one masked row for CLS say the same as one attention under an (N, N) mask per image, in less time and memory.
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
    if torch.is_grad_enabled() or not is_plain(block):
        other_rows = torch.arange(tokens.shape[1], device=tokens.device) > 0
        return block(tokens, attn_mask=attended[:, None, None, :] | other_rows[:, None])
    inputs = block.norm1(tokens)
    query, key, value = _query_key_value(block.attn, inputs)
    mixed = _attend(block.attn, query, key, value)
    # In place, as no gradient will be asked for: a concatenation would copy all rows for the sake of one.
    mixed[:, :, :1] = _attend(block.attn, query[:, :, :1], key, value, attended)
    return _finish(block, tokens, inputs, mixed)


def cls_of_block(block: BlockLike, tokens: Tensor, attended: Tensor | None) -> Tensor:
    """CLS after a block, without the rows that nobody reads when the block is the last.

    Keys and values are made of all tokens; the query, the output projection and the MLP of CLS alone.

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
    inputs = block.norm1(tokens)
    query, key, value = _cls_query_key_value(block.attn, inputs)
    mixed = _attend(block.attn, query, key, value, attended)
    return _finish(block, tokens[:, :1], inputs[:, :1], mixed)


def _query_key_value(attn: Attention, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, D) -> three times (B, heads, N, head_dim)."""
    query, key, value = (_split_heads(attn, part) for part in attn.qkv(inputs).chunk(3, dim=-1))
    return attn.q_norm(query), attn.k_norm(key), value


def _cls_query_key_value(attn: Attention, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, D) -> the query (B, heads, 1, head_dim) of CLS, keys and values (B, heads, N, head_dim) of all tokens."""
    weight, bias = attn.qkv.weight, attn.qkv.bias
    width = weight.shape[0] // 3
    query = F.linear(inputs[:, :1], weight[:width], None if bias is None else bias[:width])
    key, value = F.linear(inputs, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    query, key, value = (_split_heads(attn, part) for part in (query, key, value))
    return attn.q_norm(query), attn.k_norm(key), value


def _split_heads(attn: Attention, tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)


def _attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor, attended: Tensor | None = None) -> Tensor:
    """Attention of the given queries; the mask is boolean, so that it means the same in every precision."""
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if attended is None else attended[:, None, None, :],
        dropout_p=attn.attn_drop.p if attn.training else 0.0,
    )


def _finish(block: BlockLike, tokens: Tensor, inputs: Tensor, mixed: Tensor) -> Tensor:
    """What a block does after the attention, on any of its rows."""
    attn = block.attn
    output = attn.norm(mixed.transpose(1, 2).flatten(2))
    gate = getattr(attn, "gate", None)  # timm has it since 2026
    if gate is not None:
        output = output * gate(inputs).sigmoid()
    tokens = tokens + block.drop_path1(block.ls1(attn.proj_drop(attn.proj(output))))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
