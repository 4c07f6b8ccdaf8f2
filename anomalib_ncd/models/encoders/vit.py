# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The mask-guided Vision Transformer of AnomalyNCD (Huang et al., CVPR 2025, arXiv 2410.14379)."""

from typing import Literal, NamedTuple, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from anomalib_ncd.models.encoders.attention import attended_rows_of_block, cls_mask, cls_of_block
from anomalib_ncd.models.encoders.backbone import require_vit
from anomalib_ncd.models.encoders.onednn_linear import use_onednn
from anomalib_ncd.models.normal.normal_patches import NormalPatches

EmptyMask = Literal["region", "cls"]
MAX_DEFAULT_LAYERS = 4
SMALLEST_SHARE = 1e-6
# What a CPU computes at once: with more, the allocator fetches new pages for every layer, which costs a sixth on top.
CPU_TOKENS_PER_PASS = 1600


class TrunkOutput(NamedTuple):
    """What the frozen part hands to the trained part; it can be kept between epochs.

    Attributes:
        tokens: Tokens (B, N, D) before the first trainable block, without gradient. Where that is the last block and
            guided, those that aren't attended mean nothing. Rows of earlier layers follow CLS, if the feature has any.
        attended: Boolean (B, N): the tokens CLS may look at; true for rows of earlier layers, so that they are kept.
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
        feature_layers: Number of blocks, counted from the last, that make up the feature. Default: 1, of the paper: CLS
            after the last block. With ``n`` more, CLS of the last ``n`` blocks and the averages of the masked patches
            in the ``n`` blocks before the last, each of one norm: what a defect looks like stands in the middle of a
            network, what it is at its end. ``None``: a quarter of the blocks, four at most.
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
        feature_layers: int | None = 1,
        empty_mask: EmptyMask = "region",
    ) -> None:
        super().__init__()
        require_vit(backbone, type(backbone).__name__)
        _check_settings(backbone, mask_layers, trainable_blocks, empty_mask)
        self.backbone = backbone
        self.mask_layers = mask_layers
        self.trainable_blocks = trainable_blocks
        self.feature_layers = _quarter(backbone, trainable_blocks) if feature_layers is None else feature_layers
        self.empty_mask = empty_mask
        self.depth = len(backbone.blocks)
        self.normal_patches = NormalPatches(backbone.embed_dim)
        _check_feature_layers(self.depth, self.feature_layers, trainable_blocks)
        backbone.requires_grad_(requires_grad=False)
        for index in self._trainable:
            backbone.blocks[index].requires_grad_(requires_grad=True)
        use_onednn(backbone.blocks)
        self.train(self.training)

    @property
    def feature_dim(self) -> int:
        """Width of the feature."""
        if self.normal_patches.is_fitted:
            return self.normal_patches.feature_dim
        return self.backbone.embed_dim * (1 + self._num_layer_rows)

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
    def trunk(self, images: Tensor, masks: Tensor, whole: Tensor | None = None) -> TrunkOutput:
        """Run everything before the trainable blocks, always without gradient.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) in [0, 1] of the same size.
            whole: Normalised images (B, 3, H, W), each the whole that the region lies in; for an encoder that compares
                with normal images.

        Returns:
            Tokens and what CLS may look at: the input of ``head``.

        Raises:
            ValueError: If shapes or sizes are not those of the backbone, or whole images are needed and not given.
        """
        self._check_images(images, masks)
        attended = self.attended_tokens(masks)
        run = self._compared_rows if self.normal_patches.is_fitted else self._frozen_blocks
        per_pass = max(1, CPU_TOKENS_PER_PASS // attended.shape[1])
        if images.device.type != "cpu" or torch.compiler.is_compiling() or len(images) <= per_pass:
            tokens = run(images, masks, attended)
        else:
            parts = zip(images.split(per_pass), masks.split(per_pass), attended.split(per_pass), strict=True)
            tokens = torch.cat([run(*part) for part in parts])
        if self.normal_patches.is_fitted:
            tokens = self.normal_patches.with_novelty(tokens, None if whole is None else self.whole_patches(whole))
            return TrunkOutput(tokens, attended[:, :1].expand(-1, tokens.shape[1]))  # always true, as CLS is attended
        return TrunkOutput(tokens, F.pad(attended, (self._num_layer_rows, 0), value=True))

    @torch.no_grad()
    def compared_patches(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of regions as they are compared with normal ones: after two thirds of the blocks.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) in [0, 1] of the same size.

        Returns:
            Patches (B, N, D), and the share (B, N, 1) of each in its region, 0 for those outside.
        """
        self._check_images(images, masks)
        attended = self.attended_tokens(masks)
        return self._compared_patches(images, attended), self._share(masks, attended)

    @torch.no_grad()
    def whole_patches(self, images: Tensor) -> Tensor:
        """Patches of whole images as they are compared with normal ones: after five twelfths of the blocks.

        Args:
            images: Normalised images (B, 3, H, W).

        Returns:
            Patches (B, N, D).
        """
        per_pass = max(1, CPU_TOKENS_PER_PASS * self.patch_size**2 // self.image_size**2)
        if images.device.type != "cpu" or torch.compiler.is_compiling() or len(images) <= per_pass:
            return self._whole_patches(images)
        return torch.cat([self._whole_patches(part) for part in images.split(per_pass)])

    def reference(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Describe regions by the frozen blocks alone, which training leaves as they are.

        Args:
            tokens: Tokens (B, N, D) of ``trunk``.
            attended: Boolean (B, N) of ``trunk``.

        Returns:
            Mean (B, D) of the attended patches, in single precision; where there are normal patches, the second
            description of :class:`NormalPatches`.
        """
        if self.normal_patches.is_fitted:
            return self.normal_patches.feature(tokens[:, 1].float())
        _, tokens, attended = self._without_layer_rows(tokens, attended)
        prefix = self.backbone.num_prefix_tokens
        weights = attended[:, prefix:, None].float()
        return (tokens[:, prefix:].float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

    def head(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Run the trainable blocks and the final norm; of the last block only the row of CLS.

        Args:
            tokens: Tokens (B, N, D) of ``trunk``; they may have been kept in half precision.
            attended: Boolean (B, N) of ``trunk``.

        Returns:
            Features (B, D).
        """
        tokens = tokens.to(self.backbone.patch_embed.proj.weight.dtype)
        if self.normal_patches.is_fitted:
            return self.normal_patches.feature(tokens[:, 0])
        rows, tokens, attended = self._without_layer_rows(tokens, attended)
        if len(self._trainable) > 1:
            whole = self._guide(attended, tokens.dtype)
            for index in self._trainable[:-1]:
                tokens = self._block(index, tokens, whole)
        if self._trainable:
            guide = attended if self._is_guided(self.depth - 1) else None
            tokens = cls_of_block(self.backbone.blocks[-1], tokens, guide)
        feature = self.backbone.fc_norm(self.backbone.norm(tokens[:, 0]))
        if not rows.shape[1]:
            return feature
        return _of_one_norm(torch.cat([feature[:, None], rows], dim=1)).flatten(1)

    def forward(self, images: Tensor, masks: Tensor, whole: Tensor | None = None) -> Tensor:
        """Encode regions.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) in [0, 1] of the same size.
            whole: See :meth:`trunk`.

        Returns:
            Features (B, D): CLS after the final norm, and what ``feature_layers`` adds.
        """
        return self.head(*self.trunk(images, masks, whole))

    @property
    def _trainable(self) -> range:
        return range(self.depth - self.trainable_blocks, self.depth)

    def _is_guided(self, index: int) -> bool:
        return index >= self.depth - self.mask_layers

    def _frozen_blocks(self, images: Tensor, masks: Tensor, attended: Tensor) -> Tensor:
        """Tokens (B, N, D) before the first trainable block, rows of earlier layers behind CLS."""
        tokens = self._embedded(images)
        guide = self._guide(attended, tokens.dtype)
        share = self._share(masks, attended) if self.feature_layers > 1 else attended
        rows: list[Tensor] = []
        for index in range(self.depth - self.trainable_blocks):
            if index == self.depth - 2 and self.trainable_blocks == 1 and self._is_guided(index):
                tokens = attended_rows_of_block(self.backbone.blocks[index], tokens, attended)
            else:
                tokens = self._block(index, tokens, guide)
            rows += self._layer_rows(index, tokens, share)
        return torch.cat([tokens[:, :1], *rows, tokens[:, 1:]], dim=1) if rows else tokens

    def _compared_rows(self, images: Tensor, masks: Tensor, attended: Tensor) -> Tensor:
        """All that is needed where there are normal patches, (B, 2, D): what sets a region apart from them, twice."""
        patches = self._compared_patches(images, attended)
        return self.normal_patches(patches, self._share(masks, attended)).to(patches.dtype)

    def _compared_patches(self, images: Tensor, attended: Tensor) -> Tensor:
        """Patches (B, N, D) after the block that is compared."""
        tokens = self._embedded(images)
        guide = self._guide(attended, tokens.dtype)
        for index in range(self._compared_block + 1):
            tokens = self._block(index, tokens, guide)
        return tokens[:, self.backbone.num_prefix_tokens :]

    def _whole_patches(self, images: Tensor) -> Tensor:
        """Patches (B, N, D) after the block at which whole images are compared; no mask guides anything."""
        tokens = self._embedded(images)
        for block in self.backbone.blocks[: min(max(self.depth * 5 // 12, 1), self.depth - self.trainable_blocks)]:
            tokens = block(tokens)
        return tokens[:, self.backbone.num_prefix_tokens :]

    def _embedded(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D) before the first block."""
        tokens = self.backbone._pos_embed(self.backbone.patch_embed(images))
        return self.backbone.norm_pre(self.backbone.patch_drop(tokens))

    @property
    def _compared_block(self) -> int:
        """The block whose patches are compared with normal ones, at two thirds of the depth; -1 if none is frozen."""
        return min(self.depth * 2 // 3, self.depth - self.trainable_blocks) - 1

    def _block(self, index: int, tokens: Tensor, guide: Tensor | None) -> Tensor:
        """Run a whole block, guided by ``guide`` of :meth:`_guide` if it is among the last ``mask_layers``."""
        block = self.backbone.blocks[index]
        return block(tokens, attn_mask=guide) if self._is_guided(index) else block(tokens)

    def _guide(self, attended: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What guides CLS in whole blocks."""
        return cls_mask(attended, dtype) if self.mask_layers else None

    @property
    def _num_layer_rows(self) -> int:
        """CLS of earlier blocks and averages of masked patches that the feature has beside CLS of the last block."""
        return 2 * self.feature_layers - 1 if self.feature_layers > 1 else 0

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

    def _without_layer_rows(self, tokens: Tensor, attended: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of earlier layers (B, rows, D), and tokens (B, N, D) and attended (B, N) without them."""
        end = 1 + self._num_layer_rows
        if end == 1:
            return tokens[:, :0], tokens, attended
        rows, patches = tokens[:, 1:end], tokens[:, end:]
        return rows, torch.cat([tokens[:, :1], patches], dim=1), torch.cat([attended[:, :1], attended[:, end:]], dim=1)

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


def _of_one_norm(vectors: Tensor) -> Tensor:
    """Vectors (..., D) scaled to a root mean square of 1, in at least single precision."""
    precise = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return F.normalize(precise, dim=-1).to(vectors.dtype) * vectors.shape[-1] ** 0.5


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


def _quarter(backbone: VisionTransformer, trainable_blocks: int) -> int:
    """The default of ``feature_layers``; layers that are trained are no part of it."""
    return 1 if trainable_blocks > 1 else min(max(len(backbone.blocks) // 4, 1), MAX_DEFAULT_LAYERS)


def _check_feature_layers(depth: int, feature_layers: int, trainable_blocks: int) -> None:
    """Refuse features of layers that there are not, or that training would change."""
    most = max(depth - 1, 1)
    if not 1 <= feature_layers <= most:
        msg = f"`feature_layers` must be from 1 to {most} for a backbone of {depth} blocks, got {feature_layers}."
        raise ValueError(msg)
    if feature_layers > 1 and trainable_blocks > 1:
        msg = (
            f"`feature_layers` above 1 takes frozen layers, but `trainable_blocks` is {trainable_blocks}; "
            "train one block at most, or take `feature_layers=1`."
        )
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
