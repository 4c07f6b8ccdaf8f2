# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A convolutional network in the place of the mask-guided ViT of AnomalyNCD (Huang et al., CVPR 2025).

What the paper does by attention, to look at the anomaly only while its surroundings still inform the features, is done
by an average over the feature map that the mask weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from anomalib_ncd.models.encoders.base import Frozen, RegionEncoder, check_range, check_views, default_layers, in_parts

VIEWS_PER_PASS = 64
FAST_FORMAT = torch.channels_last  # depthwise convolutions take half the time in it, on CPUs as well

CHECK_SIZE_PX = 64


def chain_of(backbone: nn.Module) -> dict[str, nn.Module]:
    """Cut a network into the modules, by path, that make its feature maps; what comes after the last map is left out.

    The chain is run once against the network's own features, so that no network passes whose modules do not simply
    follow one another; ``TypeError`` for others.
    """
    infos = getattr(backbone, "feature_info", None) or []
    scales = [info["module"] for info in infos]
    modules = _modules_up_to_last(backbone, scales)
    if not modules or not _reproduces(backbone, list(modules.values())):
        msg = (
            f"the backbone must be a timm VisionTransformer or one of timm's convolutional networks whose stages "
            f"follow one another, got {type(backbone).__name__}; take 'offline', a ResNet, EfficientNet, ConvNeXt or "
            f"RegNet, or a ViT such as 'vit_base_patch8_224.dino'."
        )
        raise TypeError(msg)
    return modules


def _modules_up_to_last(network: nn.Module, scales: list[str], prefix: str = "") -> dict[str, nn.Module]:
    """Modules by their path, in order; those that hold feature maps inside are taken apart."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_children():
        path = prefix + name
        if any(scale.startswith(path + ".") for scale in scales):
            found |= _modules_up_to_last(module, scales, path + ".")
        else:
            found[path] = module
        if scales and scales[-1] in found:
            return found
    return found if prefix else {}


@torch.no_grad()
def _reproduces(backbone: nn.Module, modules: list[nn.Module]) -> bool:
    """Whether the chain gives the network's last feature map."""
    intermediates_of: Any = getattr(backbone, "forward_intermediates", None)
    if intermediates_of is None:
        return False
    was_training = backbone.training
    backbone.eval()
    images = torch.linspace(-2, 2, 3 * CHECK_SIZE_PX**2).view(1, 3, CHECK_SIZE_PX, CHECK_SIZE_PX)
    try:
        own = intermediates_of(images, indices=1, intermediates_only=True)[-1]
        found = nn.Sequential(*modules)(images)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError):
        return False
    finally:
        backbone.train(was_training)
    return isinstance(found, Tensor) and found.shape == own.shape and torch.allclose(found, own)


def has_convolution(module: nn.Module) -> bool:
    """Whether a module is a stage, as against a lone norm, activation or pooling."""
    return any(isinstance(part, nn.Conv2d) for part in module.modules())


class MaskGuidedCnn(RegionEncoder):
    """A convolutional network whose feature maps are averaged over the anomaly; see :class:`RegionEncoder`.

    The weight of a place is the share of it that the mask covers; an empty mask averages over everything. Each stage's
    average is brought to the same norm, and the feature to a root mean square of 1, as the final norm of a ViT does.

    ``TypeError`` if the backbone's stages do not follow one another, ``ValueError`` if an argument is out of its range.

    Only the last ``trainable_blocks`` stages are trained. Their batch norms keep the mean and variance of the
    pretraining, for a region's feature should depend neither on its batch nor on when it was computed.

    Args:
        backbone: A convolutional network of timm, without its classifier or with it.
        image_size: Side of the square images in pixels.
        trainable_blocks: Number of last stages that are trained. A stage is what timm's network calls one: ``layer4``
            of a ResNet, ``blocks.6`` of an EfficientNet.
        feature_layers: Number of last stages whose averages make up the feature. ``None``: a quarter, four at most.
    """

    setting_names = ("trainable_blocks", "feature_layers", "image_size")

    def __init__(
        self, backbone: nn.Module, *, image_size: int = 224, trainable_blocks: int = 1, feature_layers: int | None = 1
    ) -> None:
        super().__init__(backbone)
        links = list(chain_of(backbone).values())
        stages = [index for index, module in enumerate(links) if has_convolution(module)]
        check_range("trainable_blocks", trainable_blocks, 0, len(stages))
        if feature_layers is None:
            feature_layers = default_layers(len(stages))
        check_range("feature_layers", feature_layers, 1, len(stages))
        self.image_size = image_size
        self.trainable_blocks = trainable_blocks
        self.links = nn.ModuleList(links).to(memory_format=FAST_FORMAT)
        self.feature_layers = feature_layers
        self._layers = [*stages[len(stages) - feature_layers : -1], len(links) - 1]
        self._first_trained = stages[-trainable_blocks] if trainable_blocks else len(links)
        self.links.requires_grad_(requires_grad=False)
        self.links[self._first_trained :].requires_grad_(requires_grad=True)
        self.train(self.training)
        self._shapes = self._output_shapes()
        # Averages of the stages before the map that the trained stages start from; that one is in the tokens anyway.
        self._early = [index for index in self._layers if index < self._first_trained - 1]
        self.patch_width = self._shapes[self._first_trained][0]
        self.width = sum(self._shapes[index + 1][0] for index in self._layers)

    def train(self, mode: bool = True) -> MaskGuidedCnn:
        """Set the mode of the trainable stages; the frozen part and all batch norms stay in evaluation mode."""
        super().train(mode)
        self.links[: self._first_trained].eval()
        for module in self.links.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    @torch.no_grad()
    def frozen(self, images: Tensor, masks: Tensor) -> Frozen:
        """Run the frozen stages; see :class:`RegionEncoder`.

        The tokens are rows that hold the averages of earlier stages, then the map that the trained stages start from,
        one row per place with the mask's share in it as the last number. All of them are needed.
        """
        check_views(images, masks, self.image_size)
        tokens = in_parts(self._frozen_tokens, VIEWS_PER_PASS, images, masks)
        return Frozen(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def trained(self, frozen: Frozen) -> Tensor:
        """Run the trained stages and average over the anomaly: features (B, width), of root mean square 1."""
        maps, share, rows = self._map_of(frozen.tokens.to(self._dtype))
        maps = maps.contiguous(memory_format=FAST_FORMAT)
        widths = [self._shapes[index + 1][0] for index in self._early]
        averages = list(rows.flatten(1)[:, : sum(widths)].split(widths, dim=1)) if widths else []
        for index in range(self._first_trained - 1, len(self.links)):
            if index >= self._first_trained:
                maps = self.links[index](maps)
            if index in self._layers:
                averages.append(masked_average(maps, self._share(share, index)))
        feature = torch.cat([F.normalize(average.to(self._dtype), dim=1) for average in averages], dim=1)
        return feature * math.sqrt(self.width / len(averages))

    def reference(self, frozen: Frozen) -> Tensor:
        """Average (B, C) over the anomaly, in single precision, of the map that the trained stages start from."""
        maps, share, _ = self._map_of(frozen.tokens.float())
        return masked_average(maps, share)

    @torch.no_grad()
    def region_patches(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Places of the map that the trained stages start from; see :class:`RegionEncoder`."""
        check_views(images, masks, self.image_size)
        share = _in_rows(self._share(masks.to(images.dtype), self._first_trained - 1))
        return self.whole_patches(images), share + (share.sum(dim=1, keepdim=True) == 0)

    @torch.no_grad()
    def whole_patches(self, images: Tensor) -> Tensor:
        """Places of whole images, those that :meth:`region_patches` gives; see :class:`RegionEncoder`."""
        return in_parts(lambda part: _in_rows(self._frozen_maps(part)[-1]), VIEWS_PER_PASS, images)

    def _frozen_maps(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C, h, w) of the early stages, and the one that the trained stages start from."""
        maps, kept = images.contiguous(memory_format=FAST_FORMAT), []
        for index, link in enumerate(self.links[: self._first_trained]):
            maps = link(maps)
            if index in self._early:
                kept.append(maps)
        return [*kept, maps]

    def _frozen_tokens(self, images: Tensor, masks: Tensor) -> Tensor:
        """Tokens of :meth:`frozen`."""
        masks = masks.to(images.dtype)
        *early, maps = self._frozen_maps(images)
        share = self._share(masks, self._first_trained - 1).to(maps.dtype)
        places = _in_rows(torch.cat([maps, share], dim=1))
        if not early:
            return places
        pairs = zip(early, self._early, strict=True)
        averages = torch.cat([masked_average(each, self._share(masks, index)) for each, index in pairs], dim=1)
        width = places.shape[2]
        rows = F.pad(averages.to(maps.dtype), (0, -averages.shape[1] % width)).unflatten(1, (-1, width))
        return torch.cat([rows, places], dim=1)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.links.parameters()).dtype

    def _map_of(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, C, h, w), share of the mask (B, 1, h, w) and rows of earlier averages in tokens of :meth:`frozen`."""
        channels, height, width = self._shapes[self._first_trained]
        rows, places = tokens.split([tokens.shape[1] - height * width, height * width], dim=1)
        maps, share = places.transpose(1, 2).unflatten(2, (height, width)).split([channels, 1], dim=1)
        return maps, share, rows

    def _share(self, masks: Tensor, index: int) -> Tensor:
        """Share (B, 1, h, w) of each place of a link's output that the masks cover."""
        # The size of the output is read here and not off the output, where an exported graph would not know it.
        return F.adaptive_avg_pool2d(masks, self._shapes[index + 1][1:])

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


def masked_average(maps: Tensor, share: Tensor) -> Tensor:
    """Average maps (B, C, h, w) by the share (B, 1, h, w) in [0, 1] of each place that the mask covers.

    In at least single precision; over all places where the mask is empty.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))  # half precision overflows in the sum
    share = share.to(maps.dtype)
    share = share + (share.sum(dim=(2, 3), keepdim=True) == 0)  # all ones where the mask is empty
    return (maps * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3))


def _in_rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)
