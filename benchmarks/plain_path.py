# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The plain way to do what the package does fast: Pillow views in every epoch, scores written out, whole blocks.

A baseline for ``training.py`` and nothing else. It computes the same features and draws views from the same
distribution.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as pil
from torchvision.transforms import transforms

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.models.encoders.attention import cls_mask, run_block
from anomalib_ncd.models.encoders.base import Frozen
from anomalib_ncd.models.encoders.vit import MaskGuidedVit


class PillowView:
    """The augmentation of training, operation by operation in Pillow as torchvision offers it."""

    def __init__(self, image_size: int = 224) -> None:
        self.image_size = image_size
        self.jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=(0.6, 1.8))

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a random view: ``(3, S, S)`` uint8 and its mask ``(1, S, S)`` float."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        resized = int(self.image_size / 0.875)
        picture = pil.resize(Image.fromarray(image), resized)
        mask_picture = pil.resize(Image.fromarray(mask.astype(np.uint8) * 255), resized)
        left, top = (int(rng.random() * (resized - self.image_size)) for _ in range(2))
        pictures = [pil.crop(each, top, left, self.image_size, self.image_size) for each in (picture, mask_picture)]
        for flip in (pil.hflip, pil.vflip):
            if rng.random() < 0.5:
                pictures = [flip(each) for each in pictures]
        pictures[0] = self.jitter(pictures[0])
        turn = 90 * int(rng.integers(4))
        picture, mask_picture = (pil.rotate(each, turn) for each in pictures)
        picture = pil.adjust_sharpness(picture, 0.2 + 1.8 * rng.random())
        kernel = int(rng.choice((9, 13, 17, 21, 25, 29, 33)))
        picture = pil.gaussian_blur(picture, [kernel, kernel], [rng.uniform(0.1, 2.0)])
        picture = pil.posterize(picture, int(rng.integers(5, 9)))
        return pil.pil_to_tensor(picture), pil.to_tensor(mask_picture)


class PlainEncoder(MaskGuidedVit):
    """The same features from whole blocks, with the scores of attention written out."""

    @classmethod
    def of(cls, encoder: MaskGuidedVit) -> PlainEncoder:
        """Turn an encoder into a plain one; its weights are shared, its attention is no longer fused."""
        plain = cls(
            encoder.backbone,
            mask_layers=encoder.mask_layers,
            trainable_blocks=encoder.trainable_blocks,
            empty_mask=encoder.empty_mask,
        )
        for block in plain.backbone.blocks:
            block.attn.fused_attn = False  # type: ignore[union-attr]
        return plain

    @torch.no_grad()
    def frozen(self, images: torch.Tensor, masks: torch.Tensor) -> Frozen:
        """The whole batch at once."""
        attended = self.attended_tokens(masks)
        return Frozen(self._frozen_tokens(images, masks, attended), attended)

    def trained(self, frozen: Frozen) -> torch.Tensor:
        """All rows of the last block, of which one is used."""
        tokens = run_block(self.backbone.blocks[-1], frozen.tokens, cls_mask(frozen.attended, frozen.tokens.dtype))
        return self.backbone.fc_norm(self.backbone.norm(tokens)[:, 0])


def make_plain(model: AnomalyNcd) -> AnomalyNcd:
    """Give a model the plain encoder.

    Raises:
        TypeError: If its backbone is no Vision Transformer.
    """
    if not isinstance(model.model.describer.encoder, MaskGuidedVit):
        msg = f"The plain path is that of a Vision Transformer, got {model.backbone_name}."
        raise TypeError(msg)
    model.model.describer.encoder = PlainEncoder.of(model.model.describer.encoder)
    return model
