# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A convolutional network in the place of the mask-guided ViT of AnomalyNCD (Huang et al., CVPR 2025).

What the paper does by attention, to look at the anomaly only while its surroundings still inform the features, is done
by an average over the feature map that the mask weights. The interface is that of ``MaskGuidedEncoder``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from anomalib_ncd.models.encoders.cnn_stages import chain_of
from anomalib_ncd.models.encoders.vit import MAX_DEFAULT_LAYERS, TrunkOutput, check_masks
from anomalib_ncd.models.normal.normal_patches import NormalPatches

FAST_FORMAT = torch.channels_last  # depthwise convolutions take half the time in it, on CPUs as well


class MaskGuidedCnn(nn.Module):
    """A convolutional network whose feature maps are averaged over the anomaly.

    The weight of a place is the share of it that the mask covers, so that thin anomalies count as well; an empty mask
    averages over everything. Each stage's average is brought to the same norm, and the feature to a root mean square
    of 1, as the final norm of a ViT does.

    Only the last ``trainable_blocks`` stages are trained. Their batch norms keep the mean and variance of the
    pretraining, also in training: batches are small and mix base and novel regions, which are of different origin,
    and a region's feature should depend neither on its batch nor on when it was computed. Their scales and shifts are
    trained.

    Args:
        backbone: A convolutional network of timm, without its classifier or with it.
        image_size: Side of the square images in pixels.
        trainable_blocks: Number of stages, counted from the last, that are trained. A stage is what timm's network
            calls one: ``layer4`` of a ResNet, ``blocks.6`` of an EfficientNet.
        feature_layers: Number of stages, counted from the last, whose averages make up the feature. Default: 1.
            ``None``: a quarter of the stages, four at most.

    Raises:
        TypeError: If the backbone's stages do not follow one another.
        ValueError: If an argument is out of its range.

    Example:
        >>> import timm
        >>> encoder = MaskGuidedCnn(timm.create_model("resnet10t", pretrained=False), image_size=64, feature_layers=2)
        >>> encoder(torch.rand(4, 3, 64, 64), torch.ones(4, 1, 64, 64)).shape
        torch.Size([4, 768])
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        image_size: int = 224,
        trainable_blocks: int = 1,
        feature_layers: int | None = 1,
    ) -> None:
        super().__init__()
        links = chain_of(backbone)
        stages = [index for index, link in enumerate(links) if link.has_weights]
        _check_range("trainable_blocks", trainable_blocks, 0, len(stages))
        if feature_layers is None:
            feature_layers = min(max(len(stages) // 4, 1), MAX_DEFAULT_LAYERS)
        _check_range("feature_layers", feature_layers, 1, len(stages))
        self.image_size = image_size
        self.trainable_blocks = trainable_blocks
        self.links = nn.ModuleList(link.module for link in links).to(memory_format=FAST_FORMAT)
        self.feature_layers = feature_layers
        self._layers = [*stages[len(stages) - feature_layers : -1], len(links) - 1]
        self._first_trained = stages[-trainable_blocks] if trainable_blocks else len(links)
        self.links.requires_grad_(requires_grad=False)
        self.links[self._first_trained :].requires_grad_(requires_grad=True)
        self.train(self.training)
        self._shapes = self._output_shapes()
        self.normal_patches = NormalPatches(self._shapes[self._first_trained][0])

    @property
    def feature_dim(self) -> int:
        """Width of the feature."""
        if self.normal_patches.is_fitted:
            return self.normal_patches.feature_dim
        return sum(self._shapes[index + 1][0] for index in self._layers)

    def train(self, mode: bool = True) -> MaskGuidedCnn:
        """Set the mode of the trainable stages; the frozen part and all batch norms stay in evaluation mode.

        Args:
            mode: ``True`` for training.

        Returns:
            The encoder itself.
        """
        super().train(mode)
        self.links[: self._first_trained].eval()
        for module in self.links.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    @torch.no_grad()
    def trunk(self, images: Tensor, masks: Tensor, whole: Tensor | None = None) -> TrunkOutput:
        """Run the frozen stages, always without gradient.

        The tokens hold the map that the trained stages start from, one row per place with the mask's share in it as
        the last number, followed by rows that hold the averages of earlier stages. All of them are needed.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) of any type, with values in [0, 1].
            whole: Normalised images (B, 3, H, W), each the whole that the region lies in; for an encoder that compares
                with normal images.

        Returns:
            Tokens (B, N, D) and a mask of ones (B, N): the input of ``head``.

        Raises:
            ValueError: If shapes or sizes are not those of the encoder, or whole images are needed and not given.
        """
        places, averages = self._frozen_stages(images, masks)
        if self.normal_patches.is_fitted:
            rows = self.normal_patches(*_parted(places)).to(places.dtype)  # the two that are needed
            places = self.normal_patches.with_novelty(rows, None if whole is None else self.whole_patches(whole))
        elif averages:
            places = torch.cat([places, _in_rows(torch.cat(averages, dim=1), places.shape[2])], dim=1)
        return TrunkOutput(places, torch.ones(places.shape[:2], dtype=torch.bool, device=places.device))

    @torch.no_grad()
    def compared_patches(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Places of regions as they are compared with normal ones: of the map that the trained stages start from.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) of any type, with values in [0, 1].

        Returns:
            Patches (B, N, C), and the share (B, N, 1) of each that belongs to its region, 0 for those outside.
        """
        return _parted(self._frozen_stages(images, masks)[0])

    @torch.no_grad()
    def whole_patches(self, images: Tensor) -> Tensor:
        """Places of whole images as they are compared with normal ones: those that :meth:`compared_patches` gives.

        Args:
            images: Normalised images (B, 3, H, W).

        Returns:
            Patches (B, N, C).
        """
        return self._frozen_stages(images, torch.ones_like(images[:, :1]))[0][..., :-1]

    def reference(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Describe regions by the frozen stages alone, which training leaves as they are.

        Args:
            tokens: Tokens (B, N, D) of ``trunk``.
            attended: Boolean (B, N) of ``trunk``, all ``True``.

        Returns:
            Average (B, C) over the anomaly of the map that the trained stages start from, in single precision; where
            there are normal patches, the second description of :class:`NormalPatches`.
        """
        del attended
        if self.normal_patches.is_fitted:
            return self.normal_patches.feature(tokens[:, 1].float())
        maps, share = self._map_of(tokens.float())[:2]
        return masked_average(maps, share)

    def head(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Run the trained stages and average over the anomaly.

        Args:
            tokens: Tokens (B, N, D) of ``trunk``; they may have been kept in half precision.
            attended: Boolean (B, N) of ``trunk``, all ``True``.

        Returns:
            Features (B, D), of root mean square 1.
        """
        del attended
        if self.normal_patches.is_fitted:
            return self.normal_patches.feature(tokens[:, 0].to(self._dtype))
        maps, share, rows = self._map_of(tokens.to(self._dtype))
        maps = maps.contiguous(memory_format=FAST_FORMAT)
        frozen = [self._shapes[index + 1][0] for index in self._layers if self._is_early(index)]
        averages = list(rows.flatten(1)[:, : sum(frozen)].split(frozen, dim=1)) if frozen else []
        for index in range(self._first_trained - 1, len(self.links)):
            if index >= self._first_trained:
                maps = self.links[index](maps)
            if index in self._layers:
                averages.append(masked_average(maps, self._share(share, index)))
        feature = torch.cat([F.normalize(average.to(self._dtype), dim=1) for average in averages], dim=1)
        return feature * math.sqrt(self.feature_dim / len(averages))

    def forward(self, images: Tensor, masks: Tensor, whole: Tensor | None = None) -> Tensor:
        """Encode regions.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) in [0, 1] of the same size.
            whole: See :meth:`trunk`.

        Returns:
            Features (B, D), of root mean square 1.
        """
        return self.head(*self.trunk(images, masks, whole))

    def _frozen_stages(self, images: Tensor, masks: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Places (B, h * w, C + 1) of the map that the trained stages start from, and averages of earlier stages."""
        self._check_inputs(images, masks)
        masks = masks.to(images.dtype)
        maps = images.contiguous(memory_format=FAST_FORMAT)
        averages: list[Tensor] = []
        for index, link in enumerate(self.links[: self._first_trained]):
            maps = link(maps)
            if index in self._layers and self._is_early(index):
                averages.append(masked_average(maps, self._share(masks, index)).to(maps.dtype))
        share = self._share(masks, self._first_trained - 1).to(maps.dtype)
        return torch.cat([maps, share], dim=1).flatten(2).transpose(1, 2), averages

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.links.parameters()).dtype

    def _map_of(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, C, h, w), share of the mask (B, 1, h, w) and rows of earlier averages in tokens of ``trunk``."""
        channels, height, width = self._shapes[self._first_trained]
        places, rows = tokens.split([height * width, tokens.shape[1] - height * width], dim=1)
        maps, share = places.transpose(1, 2).unflatten(2, (height, width)).split([channels, 1], dim=1)
        return maps, share, rows

    def _share(self, masks: Tensor, index: int) -> Tensor:
        """Share (B, 1, h, w) of each place of a link's output that the masks cover."""
        # The size of the output is read here and not off the output, where an exported graph would not know it.
        return F.adaptive_avg_pool2d(masks, self._shapes[index + 1][1:])

    def _is_early(self, index: int) -> bool:
        """Whether a scale is averaged by the trunk; the map the trained stages start from is in the tokens anyway."""
        return index < self._first_trained - 1

    @torch.no_grad()
    def _output_shapes(self) -> list[tuple[int, int, int]]:
        """Channels, height and width of the images and of every link's output."""
        maps = torch.zeros(1, 3, self.image_size, self.image_size, dtype=self._dtype)
        was_training = self.training
        self.eval()
        shapes = [(3, self.image_size, self.image_size)]
        for link in self.links:
            maps = link(maps)
            shapes.append((maps.shape[1], maps.shape[2], maps.shape[3]))
        self.train(was_training)
        return shapes

    def _check_inputs(self, images: Tensor, masks: Tensor) -> None:
        size = self.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            msg = (
                f"`images` must have shape (B, 3, {size}, {size}), got {tuple(images.shape)}; resize them or build the "
                f"encoder with another `image_size`."
            )
            raise ValueError(msg)
        check_masks(masks, size)
        if masks.shape[0] != images.shape[0]:
            msg = f"`masks` must be as many as `images`, got {masks.shape[0]} and {images.shape[0]}."
            raise ValueError(msg)


def masked_average(maps: Tensor, share: Tensor) -> Tensor:
    """Average a feature map over the anomaly.

    Args:
        maps: Feature maps (B, C, h, w).
        share: Share (B, 1, h, w) of each place that the mask covers, in [0, 1].

    Returns:
        Averages (B, C) in at least single precision, weighted by the share; over all places where the mask is empty.

    Example:
        >>> maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> masked_average(maps, torch.tensor([[[[0.0, 1.0], [0.0, 0.25]]]]))
        tensor([[2.4000]])
        >>> masked_average(maps, torch.zeros(1, 1, 2, 2))
        tensor([[2.5000]])
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))  # half precision overflows in the sum
    share = share.to(maps.dtype)
    share = share + (share.sum(dim=(2, 3), keepdim=True) == 0)  # all ones where the mask is empty
    return (maps * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3))


def _parted(places: Tensor) -> tuple[Tensor, Tensor]:
    """Map (B, N, C) and share (B, N, 1) of the mask in each place; ones where it is 0 in all of them."""
    patches, share = places.split([places.shape[2] - 1, 1], dim=2)
    return patches, share + (share.sum(dim=1, keepdim=True) == 0)


def _in_rows(vectors: Tensor, width: int) -> Tensor:
    """(B, P) -> (B, rows, width), filled up with zeros."""
    padded = F.pad(vectors, (0, -vectors.shape[1] % width))
    return padded.unflatten(1, (padded.shape[1] // width, width))


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        msg = f"`{name}` must be between {low} and {high} for this backbone, got {value}."
        raise ValueError(msg)
