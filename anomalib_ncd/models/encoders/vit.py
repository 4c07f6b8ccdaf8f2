# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The mask-guided Vision Transformer of AnomalyNCD (Huang et al., CVPR 2025, arXiv 2410.14379)."""

from typing import Any, Literal, TypeAlias, get_args

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from anomalib_ncd.models.clustering.clustering import unit_rows
from anomalib_ncd.models.encoders.attention import attended_rows_of_block, cls_mask, cls_of_block, run_block
from anomalib_ncd.models.encoders.base import Frozen, RegionEncoder, check_range, check_views, default_layers, in_parts

EmptyMask = Literal["region", "cls"]
VitLike: TypeAlias = VisionTransformer | Eva
SMALLEST_SHARE = 1e-6
# What is computed at once. A CPU's allocator fetches new pages for every layer if it is more, which costs a sixth on
# top; a GPU's memory must hold it, whatever the number of regions.
CPU_TOKENS_PER_PASS, GPU_TOKENS_PER_PASS = 1600, 50_000
ROW_OF_PLACES = 1024  # places are kept as two numbers, which half precision holds exactly


class MaskGuidedVit(RegionEncoder):
    """A Vision Transformer whose CLS token looks only at the anomaly; see :class:`RegionEncoder`.

    In the last ``mask_layers`` blocks, CLS attends to the patches of which the mask covers at least half, to itself and
    to the other prefix tokens. The patches themselves see everything, so that the context of the anomaly still reaches
    CLS through them. All but the last ``trainable_blocks`` blocks stays as it is, the final norm included.
    ``TypeError`` if the backbone has no class token, ``ValueError`` if an argument is out of its range.

    Args:
        backbone: A timm Vision Transformer with a class token, for square images; DINOv3's are of timm's class ``Eva``.
        mask_layers: Number of last blocks in which the mask guides CLS, or all if there are fewer; 9 in the paper.
        trainable_blocks: Number of last blocks that are trained; 1 in the paper.
        feature_layers: Number of last blocks that make up the feature; 1 in the paper: CLS after the last block. ``n``
            above 1: CLS of the last ``n`` blocks and the averages of the masked patches in the ``n`` blocks before the
            last, each of one norm. ``None``: a quarter of the blocks, four at most.
        empty_mask: What CLS sees when the mask covers half of no patch. ``"region"``: every patch that the mask
            touches, or all patches if it touches none. ``"cls"``: nothing but itself, as in the authors' code; then
            all thin anomalies look alike.
    """

    setting_names = ("mask_layers", "empty_mask", "trainable_blocks", "feature_layers", "image_size")

    def __init__(
        self,
        backbone: VitLike,
        *,
        mask_layers: int = 9,
        trainable_blocks: int = 1,
        feature_layers: int | None = 1,
        empty_mask: EmptyMask = "region",
    ) -> None:
        super().__init__(backbone)
        _check_backbone(backbone)
        self.depth = len(backbone.blocks)
        if feature_layers is None:  # layers that are trained are no part of it
            feature_layers = 1 if trainable_blocks > 1 else default_layers(self.depth)
        check_range("mask_layers", min(mask_layers, self.depth), 0, self.depth)
        check_range("trainable_blocks", trainable_blocks, 0, self.depth)
        check_range("feature_layers", feature_layers, 1, max(self.depth - 1, 1))
        _check_choices(feature_layers, trainable_blocks, empty_mask)
        self.backbone = backbone
        self.mask_layers = min(mask_layers, self.depth)
        self.trainable_blocks, self.feature_layers, self.empty_mask = trainable_blocks, feature_layers, empty_mask
        self.image_size: int = backbone.patch_embed.img_size[0]
        self.patch_size: int = backbone.patch_embed.patch_size[0]
        self.patch_width: int = backbone.embed_dim
        # CLS of earlier blocks and averages of masked patches that the feature has besides CLS of the last block.
        self._num_rows = 2 * feature_layers - 1 if feature_layers > 1 else 0
        self.width = self.patch_width * (1 + self._num_rows)
        backbone.requires_grad_(requires_grad=False)
        for index in self._trainable:
            backbone.blocks[index].requires_grad_(requires_grad=True)
        self.train(self.training)

    def train(self, mode: bool = True) -> "MaskGuidedVit":
        """Set the mode of the trainable blocks; the frozen part stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        for index in self._trainable:
            self.backbone.blocks[index].train(mode)
        return self

    def attended_tokens(self, masks: Tensor) -> Tensor:
        """Tokens (B, N) bool that CLS may look at, given masks (B, 1, S, S) in [0, 1]."""
        coverage = F.avg_pool2d(masks.float(), self.patch_size).flatten(1)  # (B, patches)
        patches = coverage >= 0.5
        if self.empty_mask == "region":
            # Logic instead of a choice between booleans, which ONNX Runtime doesn't have.
            patches = patches | ((coverage > 0) & ~patches.any(1, keepdim=True))
            patches = patches | ~patches.any(1, keepdim=True)
        return F.pad(patches, (self.backbone.num_prefix_tokens, 0), value=True)

    @torch.no_grad()
    def frozen(self, images: Tensor, masks: Tensor) -> Frozen:
        """Run everything before the trainable blocks; see :class:`RegionEncoder`.

        Rows of earlier layers come first, if the feature has any. Where the first trainable block is the last and
        guided, tokens that aren't attended mean nothing.
        """
        check_views(images, masks, self.image_size)
        attended = self.attended_tokens(masks)
        tokens = in_parts(self._frozen_tokens, self._views_per_pass(images), images, masks, attended)
        return Frozen(tokens, F.pad(attended, (self._num_rows, 0), value=True))

    def trained(self, frozen: Frozen) -> Tensor:
        """Features (B, width): CLS after the trainable blocks and the final norm, and what ``feature_layers`` adds."""
        rows, tokens, attended, rope = self._parts_of(frozen)
        for index in self._trainable[:-1]:
            guide = cls_mask(attended, tokens.dtype) if self._is_guided(index) else None
            tokens = run_block(self.backbone.blocks[index], tokens, guide, rope)
        if self._trainable:
            guide = attended if self._is_guided(self.depth - 1) else None
            tokens = cls_of_block(self.backbone.blocks[-1], tokens, guide, rope)
        feature = self.backbone.fc_norm(self.backbone.norm(tokens[:, 0]))
        if not self._num_rows:
            return feature
        return unit_rows(torch.cat([feature[:, None], rows], dim=1)).flatten(1) * self.patch_width**0.5

    def reference(self, frozen: Frozen) -> Tensor:
        """Mean (B, D) of the attended patches after the frozen blocks, in single precision."""
        _, tokens, attended, _ = self._parts_of(frozen)
        prefix = self.backbone.num_prefix_tokens
        weights = attended[:, prefix:, None].float()
        return (tokens[:, prefix:].float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

    @torch.no_grad()
    def region_patches(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Patches after two thirds of the blocks, and their shares in the region; see :class:`RegionEncoder`."""
        check_views(images, masks, self.image_size)
        attended = self.attended_tokens(masks)
        patches = in_parts(self._region_patches, self._views_per_pass(images), images, attended)
        return patches, self._share(masks, attended)

    @torch.no_grad()
    def whole_patches(self, images: Tensor) -> Tensor:
        """Patches after five twelfths of the blocks; see :class:`RegionEncoder`."""
        return in_parts(self._whole_patches, self._views_per_pass(images), images)

    @property
    def _trainable(self) -> range:
        return range(self.depth - self.trainable_blocks, self.depth)

    def _is_guided(self, index: int) -> bool:
        return index >= self.depth - self.mask_layers

    def _views_per_pass(self, images: Tensor) -> int:
        tokens = CPU_TOKENS_PER_PASS if images.device.type == "cpu" else GPU_TOKENS_PER_PASS
        return max(1, tokens // ((self.image_size // self.patch_size) ** 2 + self.backbone.num_prefix_tokens))

    def _frozen_tokens(self, images: Tensor, masks: Tensor, attended: Tensor) -> Tensor:
        """Tokens (B, N, D) before the first trainable block, behind rows of earlier layers."""
        tokens, rope = self._embedded(images)
        guide, share = cls_mask(attended, tokens.dtype), self._share(masks, attended)
        rows: list[Tensor] = []
        for index in range(self.depth - self.trainable_blocks):
            block = self.backbone.blocks[index]
            if index == self.depth - 2 and self.trainable_blocks == 1 and self._is_guided(index) and rope is None:
                tokens = attended_rows_of_block(block, tokens, attended)
            else:
                tokens = run_block(block, tokens, guide if self._is_guided(index) else None, rope)
            rows += self._layer_rows(index, tokens, share)
        tokens = torch.cat([*rows, tokens], dim=1)
        return tokens if rope is None else torch.cat([tokens, self._places(tokens)], dim=2)

    def _region_patches(self, images: Tensor, attended: Tensor) -> Tensor:
        """Patches (B, N, D) after two thirds of the blocks, or all frozen ones if there are fewer."""
        tokens, rope = self._embedded(images)
        guide = cls_mask(attended, tokens.dtype)
        for index in range(min(self.depth * 2 // 3, self.depth - self.trainable_blocks)):
            tokens = run_block(self.backbone.blocks[index], tokens, guide if self._is_guided(index) else None, rope)
        return tokens[:, self.backbone.num_prefix_tokens :]

    def _whole_patches(self, images: Tensor) -> Tensor:
        """Patches (B, N, D) after five twelfths of the blocks; no mask guides anything."""
        tokens, rope = self._embedded(images)
        for block in self.backbone.blocks[: min(max(self.depth * 5 // 12, 1), self.depth - self.trainable_blocks)]:
            tokens = run_block(block, tokens, None, rope)
        return tokens[:, self.backbone.num_prefix_tokens :]

    def _embedded(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, D) before the first block, and rotary embeddings of the patches, if the backbone has any."""
        embedded = self.backbone._pos_embed(self.backbone.patch_embed(images))
        tokens, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
        return self.backbone.norm_pre(tokens), rope

    def _places(self, tokens: Tensor) -> Tensor:
        """Where each token comes from (B, N, 2), since those that aren't attended may be dropped."""
        first = self._num_rows + self.backbone.num_prefix_tokens
        number = F.pad(torch.arange(tokens.shape[1] - first, device=tokens.device), (first, 0))
        place = torch.stack([number // ROW_OF_PLACES, number % ROW_OF_PLACES], dim=1)
        return place.to(tokens.dtype).expand(len(tokens), -1, -1)

    def _parts_of(self, frozen: Frozen) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Rows of earlier layers (B, rows, D), tokens (B, N, D), attended (B, N), and rotary embeddings, if any."""
        tokens, rope = frozen.tokens.to(self.backbone.patch_embed.proj.weight.dtype), None
        if getattr(self.backbone, "rope", None) is not None:
            first = self._num_rows + self.backbone.num_prefix_tokens
            row, column = frozen.tokens[:, first:, -2:].long().unbind(dim=2)
            get_embed: Any = self.backbone.rope.get_embed  # type: ignore[union-attr]
            table = get_embed(shape=self.backbone.patch_embed.grid_size)
            tokens, rope = tokens[..., :-2], table[row * ROW_OF_PLACES + column][:, None]
        rows, tokens = tokens[:, : self._num_rows], tokens[:, self._num_rows :]
        return rows, tokens, frozen.attended[:, self._num_rows :], rope

    def _layer_rows(self, index: int, tokens: Tensor, share: Tensor) -> list[Tensor]:
        """What the feature takes from a frozen block: (B, 1, D) each."""
        first = self.depth - self.feature_layers
        rows = []
        if self.feature_layers > 1 and first - 1 <= index < self.depth - 1:
            patches = tokens[:, self.backbone.num_prefix_tokens :].float()
            rows.append((patches * share).sum(dim=1, keepdim=True).to(tokens.dtype))
        if first <= index < self.depth - 1:
            rows.append(tokens[:, :1])
        return rows

    def _share(self, masks: Tensor, attended: Tensor) -> Tensor:
        """Weights (B, patches, 1) of the averages, which sum to 1: how much the mask covers of each attended patch."""
        visible = attended[:, self.backbone.num_prefix_tokens :, None].float()
        share = F.avg_pool2d(masks.float(), self.patch_size).flatten(1)[..., None] * visible
        share = share + (share.sum(dim=1, keepdim=True) == 0) * visible
        return share / share.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SHARE)


def _check_backbone(backbone: object) -> None:
    """Refuse whatever is not a Vision Transformer with a class token for square images."""
    name = type(backbone).__name__
    if not isinstance(backbone, VisionTransformer | Eva) or backbone.cls_token is None:
        what = "has no class token" if isinstance(backbone, VisionTransformer | Eva) else "is none"
        msg = (
            f"the backbone must be a timm VisionTransformer or Eva with a class token, but this {name} {what}; take "
            "one such as 'vit_base_patch8_224.dino', 'vit_small_patch14_dinov2.lvd142m' or 'vit_small_patch16_dinov3'."
        )
        raise TypeError(msg)
    if getattr(backbone, "rope_mixed", False):
        msg = f"this {name} has other rotary embeddings in each block, which is not supported; take a DINOv3 ViT."
        raise TypeError(msg)
    height, width = backbone.patch_embed.img_size
    if height != width:
        msg = f"the backbone must take square images, got {height} x {width}; build it with one `image_size`."
        raise ValueError(msg)


def _check_choices(feature_layers: int, trainable_blocks: int, empty_mask: str) -> None:
    """Refuse features of layers that training would change, and unknown ways with empty masks."""
    if feature_layers > 1 and trainable_blocks > 1:
        msg = f"`feature_layers` above 1 are frozen layers: train one block at most, not {trainable_blocks}, or take 1."
        raise ValueError(msg)
    if empty_mask not in get_args(EmptyMask):
        msg = f"`empty_mask` must be one of {get_args(EmptyMask)}, got {empty_mask!r}."
        raise ValueError(msg)
