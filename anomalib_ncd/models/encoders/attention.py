# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Mask-guided attention in timm's transformer blocks (AnomalyNCD, Huang et al., CVPR 2025, mask-guided representation).

Only the CLS row of the attention is restricted; all other rows see every token. Masks are boolean or minus infinity, so
that they mean the same in every precision.
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
    """Whether a block is timm's standard one (not parallel, post-norm, adapted, …), whose parts may be called apart."""
    return type(block) is Block and type(block.attn) is Attention and type(block.attn.qkv) is nn.Linear


def asks_plainly(block: BlockLike) -> bool:
    """Whether keys are as projected and no gate follows, so that CLS can ask without keys and values."""
    gate = getattr(block.attn, "gate", None)  # only newer versions of timm have it
    return isinstance(block.attn.k_norm, nn.Identity) and gate is None


def cls_mask(attended: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask (B, 1, N, N) that is added to the scores of attention: CLS looks only at the attended tokens (B, N) bool.

    Minus infinity where CLS, the first row, may not look, zero elsewhere; it may look somewhere in each row.
    """
    row = torch.zeros_like(attended, dtype=dtype).masked_fill(~attended, -torch.inf)
    return F.pad(row[:, None, None, :], (0, 0, 0, attended.shape[1] - 1))


def run_block(block: BlockLike, tokens: Tensor, guide: Tensor | None = None, rope: Tensor | None = None) -> Tensor:
    """Run a block of a timm Vision Transformer on tokens (B, N, D), CLS first.

    `guide` is of :func:`cls_mask`; ``None`` lets CLS look everywhere. `rope` are rotary position embeddings of the
    patches, (N', E) or (B, 1, N', E), for blocks that take them.
    """
    return block(tokens, attn_mask=guide) if rope is None else block(tokens, rope=rope, attn_mask=guide)


def attended_rows_of_block(block: BlockLike, tokens: Tensor, attended: Tensor) -> Tensor:
    """Run a guided block whose output CLS alone will look at: the MLP, two thirds of the work, for attended rows only.

    Of the tokens (B, N, D) that are returned, those that aren't ``attended`` (B, N) are of no use.
    """
    if not is_plain(block) or torch.compiler.is_compiling():  # a graph would get shapes that depend on the mask
        return run_block(block, tokens, cls_mask(attended, tokens.dtype))
    mask = cls_mask(attended, tokens.dtype)
    tokens = tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens), attn_mask=mask)))
    places = attended.flatten().nonzero().squeeze(1)
    rows = tokens.flatten(0, 1).index_select(0, places)
    rows = rows + block.drop_path2(block.ls2(block.mlp(block.norm2(rows))))
    return tokens.flatten(0, 1).index_copy(0, places, rows).view_as(tokens)


def cls_of_block(block: BlockLike, tokens: Tensor, attended: Tensor | None, rope: Tensor | None = None) -> Tensor:
    """CLS (B, 1, D) after a block, up to rounding, without the work that nobody reads when the block is the last.

    Only CLS asks, so neither keys nor values are computed: ``q · (W x)`` is ``(Wᵀ q) · x``, and a weighted sum of
    ``W x`` is ``W`` times the weighted sum of ``x``. Biases of the keys add the same to every score and fall away.
    Arguments as :func:`run_block`; ``attended`` is boolean (B, N), or ``None`` to let CLS look everywhere.
    """
    if not (is_plain(block) and asks_plainly(block)):
        guide = None if attended is None else cls_mask(attended, tokens.dtype)
        return run_block(block, tokens, guide, rope)[:, :1]
    attn, cls_input = block.attn, block.norm1(tokens[:, :1])
    width = attn.qkv.out_features // 3
    query = F.linear(cls_input, attn.qkv.weight[:width], None if attn.qkv.bias is None else attn.qkv.bias[:width])
    query = query.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)  # (B, heads, 1, d); normed only if keys are
    output = attn.norm(_mixed_values(block, tokens, query, attended).transpose(1, 2).flatten(2))
    cls = tokens[:, :1] + block.drop_path1(block.ls1(attn.proj_drop(attn.proj(output))))
    return cls + block.drop_path2(block.ls2(block.mlp(block.norm2(cls))))


def _mixed_values(block: BlockLike, tokens: Tensor, query: Tensor, attended: Tensor | None) -> Tensor:
    """Values mixed by one query per head (B, heads, 1, head_dim), computed in the space of the tokens."""
    attn = block.attn
    _, key_weight, value_weight = attn.qkv.weight.unflatten(0, (3, attn.num_heads, -1))  # (heads, head_dim, D)
    scale, shift, rows = _normed(block.norm1, tokens)
    # (B, heads, D) @ (B, D, N); the shift, like the bias of the keys, adds the same to all scores of a query.
    scores = (query.squeeze(2).transpose(0, 1) @ key_weight).transpose(0, 1) * (attn.scale * scale) @ rows.mT
    if attended is not None:
        scores = scores.masked_fill(~attended[:, None], -torch.inf)
    weights = attn.attn_drop(scores.softmax(dim=-1)).to(rows.dtype)
    total = weights.sum(dim=-1, keepdim=True)  # 1, but for dropout
    means = weights @ rows * scale + total * shift  # (B, heads, D)
    mixed = (means.transpose(0, 1) @ value_weight.mT).transpose(0, 1)
    if attn.qkv.bias is not None:
        mixed = mixed + total * attn.qkv.bias.unflatten(0, (3, attn.num_heads, -1))[2]
    return mixed[:, :, None]


def _normed(norm: nn.Module, tokens: Tensor) -> tuple[Tensor | float, Tensor | float, Tensor]:
    """Scale and shift of a layer norm, apart from the rows that they act on: frozen tokens need no gradient then."""
    if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
        return 1.0, 0.0, norm(tokens)
    return norm.weight, norm.bias, F.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)
