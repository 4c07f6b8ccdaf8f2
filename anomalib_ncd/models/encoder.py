# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The mask-guided Vision Transformer of AnomalyNCD (Huang et al., CVPR 2025, arXiv 2410.14379)."""

from typing import Literal, NamedTuple, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from anomalib_ncd.models.attention import attended_rows_of_block, cls_mask, cls_of_block
from anomalib_ncd.models.backbone import require_vit
from anomalib_ncd.models.onednn_linear import use_onednn

EmptyMask = Literal["region", "cls"]
# What a CPU computes at once: with more, the allocator fetches new pages for every layer, which costs a sixth on top.
CPU_TOKENS_PER_PASS = 1600


class TrunkOutput(NamedTuple):
    """What the frozen part hands to the trained part; it can be kept between epochs.

    Attributes:
        tokens: Tokens (B, N, D) before the first trainable block, without gradient. Where that is the last block and
            guided, those that aren't attended mean nothing.
        attended: Boolean (B, N): the tokens CLS may look at.
    """

    tokens: Tensor
    attended: Tensor


class MaskGuidedEncoder(nn.Module):
    """A Vision Transformer whose CLS token looks only at the anomaly.

    In the last ``mask_layers`` blocks, CLS attends to the patches of which the mask covers at least half, to itself and
    to the other prefix tokens (registers, distillation). The patches themselves see everything, so that the context of
    the anomaly still reaches CLS through them. Only the last ``trainable_blocks`` blocks are trained; the rest, the
    final norm included, stays as it is, in evaluation mode and without gradient.

    Args:
        backbone: A timm Vision Transformer with a class token, for square images; see ``build_backbone``.
        mask_layers: Number of blocks, counted from the last, in which the mask guides CLS. Default: 9, of the paper.
        trainable_blocks: Number of blocks, counted from the last, that are trained. Default: 1, of the paper.
        empty_mask: What CLS sees when the mask covers half of no patch. ``"region"``: every patch that the mask
            touches, or all patches if it touches none. ``"cls"``: nothing but itself, as in the authors' code; then
            all thin anomalies look alike.

    Raises:
        TypeError: If the backbone is not a Vision Transformer with a class token.
        ValueError: If an argument is out of its range.

    Example:
        >>> backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0)
        >>> encoder = MaskGuidedEncoder(backbone, mask_layers=2)
        >>> encoder(torch.rand(4, 3, 32, 32), torch.ones(4, 1, 32, 32)).shape
        torch.Size([4, 24])
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        *,
        mask_layers: int = 9,
        trainable_blocks: int = 1,
        empty_mask: EmptyMask = "region",
    ) -> None:
        super().__init__()
        require_vit(backbone, type(backbone).__name__)
        _check_settings(backbone, mask_layers, trainable_blocks, empty_mask)
        self.backbone = backbone
        self.mask_layers = mask_layers
        self.trainable_blocks = trainable_blocks
        self.empty_mask = empty_mask
        self.depth = len(backbone.blocks)
        backbone.requires_grad_(requires_grad=False)
        for index in self._trainable:
            backbone.blocks[index].requires_grad_(requires_grad=True)
        use_onednn(backbone.blocks)
        self.train(self.training)

    @property
    def feature_dim(self) -> int:
        """Width of the feature."""
        return self.backbone.embed_dim

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.backbone.patch_embed.patch_size[0]

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.backbone.patch_embed.img_size[0]

    def train(self, mode: bool = True) -> "MaskGuidedEncoder":
        """Set the mode of the trainable blocks; the frozen part stays in evaluation mode.

        Args:
            mode: ``True`` for training.

        Returns:
            The encoder itself.
        """
        super().train(mode)
        self.backbone.eval()
        for index in self._trainable:
            self.backbone.blocks[index].train(mode)
        return self

    def attended_tokens(self, masks: Tensor) -> Tensor:
        """Tokens that CLS may look at.

        Args:
            masks: Masks (B, 1, H, W) of any type, with values in [0, 1].

        Returns:
            Boolean (B, N), prefix tokens first; those are always attended.

        Raises:
            ValueError: If the shape or the size is another.
        """
        check_masks(masks, self.image_size)
        coverage = F.avg_pool2d(masks.float(), self.patch_size).flatten(1)  # (B, patches)
        patches = coverage >= 0.5
        if self.empty_mask == "region":
            # Logic instead of a choice between booleans, which ONNX Runtime doesn't have.
            patches = patches | ((coverage > 0) & ~patches.any(1, keepdim=True))
            patches = patches | ~patches.any(1, keepdim=True)
        return F.pad(patches, (self.backbone.num_prefix_tokens, 0), value=True)

    @torch.no_grad()
    def trunk(self, images: Tensor, masks: Tensor) -> TrunkOutput:
        """Run everything before the trainable blocks, always without gradient.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) in [0, 1] of the same size.

        Returns:
            Tokens and what CLS may look at: the input of ``head``.

        Raises:
            ValueError: If shapes or sizes are not those of the backbone.
        """
        self._check_images(images, masks)
        attended = self.attended_tokens(masks)
        per_pass = max(1, CPU_TOKENS_PER_PASS // attended.shape[1])
        if images.device.type != "cpu" or torch.compiler.is_compiling() or len(images) <= per_pass:
            return TrunkOutput(self._frozen_blocks(images, attended), attended)
        parts = zip(images.split(per_pass), attended.split(per_pass), strict=True)
        return TrunkOutput(torch.cat([self._frozen_blocks(*part) for part in parts]), attended)

    def head(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Run the trainable blocks and the final norm; of the last block only the row of CLS.

        Args:
            tokens: Tokens (B, N, D) of ``trunk``; they may have been kept in half precision.
            attended: Boolean (B, N) of ``trunk``.

        Returns:
            Features (B, D).
        """
        tokens = tokens.to(self.backbone.patch_embed.proj.weight.dtype)
        tokens = self._run_blocks(self._trainable[:-1], tokens, attended)
        if self._trainable:
            guide = attended if self._is_guided(self.depth - 1) else None
            tokens = cls_of_block(self.backbone.blocks[-1], tokens, guide)
        return self.backbone.fc_norm(self.backbone.norm(tokens[:, 0]))

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Encode regions.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) in [0, 1] of the same size.

        Returns:
            Features (B, D): CLS after the final norm.
        """
        return self.head(*self.trunk(images, masks))

    @property
    def _trainable(self) -> range:
        return range(self.depth - self.trainable_blocks, self.depth)

    def _is_guided(self, index: int) -> bool:
        return index >= self.depth - self.mask_layers

    def _frozen_blocks(self, images: Tensor, attended: Tensor) -> Tensor:
        """Tokens (B, N, D) before the first trainable block; where that is the last of all, the attended ones."""
        tokens = self.backbone.patch_embed(images)
        tokens = self.backbone.norm_pre(self.backbone.patch_drop(self.backbone._pos_embed(tokens)))
        last = self.depth - self.trainable_blocks - 1
        if self.trainable_blocks != 1 or not self._is_guided(last):
            return self._run_blocks(range(last + 1), tokens, attended)
        tokens = self._run_blocks(range(last), tokens, attended)
        return attended_rows_of_block(self.backbone.blocks[last], tokens, attended)

    def _run_blocks(self, indices: range, tokens: Tensor, attended: Tensor) -> Tensor:
        """Run whole blocks, guided where they are among the last ``mask_layers``."""
        mask = cls_mask(attended, tokens.dtype) if any(map(self._is_guided, indices)) else None
        for index in indices:
            block = self.backbone.blocks[index]
            tokens = block(tokens, attn_mask=mask) if self._is_guided(index) else block(tokens)
        return tokens

    def _check_images(self, images: Tensor, masks: Tensor) -> None:
        channels, size = self.backbone.patch_embed.proj.in_channels, self.image_size
        if images.ndim != 4 or images.shape[1] != channels:
            msg = f"`images` must have shape (B, {channels}, {size}, {size}), got {tuple(images.shape)}."
            raise ValueError(msg)
        if tuple(images.shape[2:]) != (size, size):
            msg = (
                f"`images` must be {size} x {size} pixels, got {tuple(images.shape)}; "
                f"resize them or build the backbone with `image_size={images.shape[2]}`."
            )
            raise ValueError(msg)
        if masks.shape[0] != images.shape[0]:
            msg = f"`masks` must be as many as `images`, got {masks.shape[0]} and {images.shape[0]}."
            raise ValueError(msg)


def check_masks(masks: Tensor, size: int) -> None:
    """Refuse masks that are not (B, 1, size, size).

    Args:
        masks: Masks to check.
        size: Side of the square images in pixels.

    Raises:
        ValueError: If the shape is another.
    """
    if masks.ndim != 4 or masks.shape[1] != 1:
        hint = "call `masks.unsqueeze(1)`" if masks.ndim == 3 else "give one channel per mask"
        msg = f"`masks` must have shape (B, 1, H, W), got {tuple(masks.shape)}; {hint}."
        raise ValueError(msg)
    if tuple(masks.shape[2:]) != (size, size):
        msg = f"`masks` must be {size} x {size} pixels like the images, got {tuple(masks.shape)}; resize them."
        raise ValueError(msg)


def _check_settings(backbone: VisionTransformer, mask_layers: int, trainable_blocks: int, empty_mask: str) -> None:
    """Refuse settings that the backbone cannot have."""
    depth = len(backbone.blocks)
    for name, value in (("mask_layers", mask_layers), ("trainable_blocks", trainable_blocks)):
        if not 0 <= value <= depth:
            msg = f"`{name}` must be between 0 and the {depth} blocks of the backbone, got {value}."
            raise ValueError(msg)
    if empty_mask not in get_args(EmptyMask):
        msg = f"`empty_mask` must be one of {get_args(EmptyMask)}, got {empty_mask!r}."
        raise ValueError(msg)
    height, width = backbone.patch_embed.img_size
    if height != width:
        msg = f"the backbone must take square images, got {height} x {width}; build it with one `image_size`."
        raise ValueError(msg)
