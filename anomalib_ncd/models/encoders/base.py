# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What all region encoders share."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

Rows = TypeVar("Rows", bound="Tensor | tuple[Tensor, ...]")


class Frozen(NamedTuple):
    """What the frozen part of an encoder hands to the trained part; it can be kept between epochs."""

    tokens: Tensor  # tokens (B, N, D), without gradient
    attended: Tensor  # boolean (B, N): the tokens that the trained part reads. The others may be dropped or be padding.


class RegionEncoder(nn.Module):
    """A network that describes regions, in a frozen and a trained part."""

    image_size: int  # side S of the square images in pixels
    width: int  # width of the feature
    patch_width: int  # width of patches and references
    setting_names: ClassVar[tuple[str, ...]]  # of what tells the frozen part from another one of the same weights

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        config = resolve_model_data_config(backbone)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])  # of images in [0, 1], RGB, that it takes

    @property
    def settings(self) -> dict[str, Any]:
        """What tells its frozen part from another one of the same weights, as plain data."""
        return {name: getattr(self, name) for name in self.setting_names}

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Features (B, width) of normalised images (B, 3, S, S) with masks (B, 1, S, S) in [0, 1]."""
        return self.trained(self.frozen(images, masks))

    def frozen(self, images: Tensor, masks: Tensor) -> Frozen:
        """Run the frozen part on images and masks as :meth:`forward`, without gradient."""
        raise NotImplementedError

    def trained(self, frozen: Frozen) -> Tensor:
        """Run the trained part on tokens, fresh or kept in half precision: features (B, width)."""
        raise NotImplementedError

    def reference(self, frozen: Frozen) -> Tensor:
        """Describe regions (B, patch_width) float32 by the frozen part alone, which training leaves as it is."""
        raise NotImplementedError

    def region_patches(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, N, patch_width) that regions are compared by, and the share (B, N, 1) of each in its region."""
        raise NotImplementedError

    def whole_patches(self, images: Tensor) -> Tensor:
        """Patches (B, N, patch_width) that whole images (B, 3, S, S) are compared by; N is a square."""
        raise NotImplementedError


def in_parts(function: Callable[..., Rows], per_pass: int, *inputs: Tensor) -> Rows:
    """Run a function of rows on at most `per_pass` of them at a time; in an exported graph on all of them.

    It takes tensors whose first dimension are the rows, and returns one or a named tuple of such.
    """
    if torch.compiler.is_compiling() or 0 < len(inputs[0]) <= per_pass:
        return function(*inputs)
    if not len(inputs[0]):  # networks can't tell the shape of nothing
        one = function(*(each.new_zeros((1, *each.shape[1:])) for each in inputs))
        if isinstance(one, Tensor):
            return one[:0]  # type: ignore[return-value]
        return type(one)(*(each[:0] for each in one))
    parts = [function(*part) for part in zip(*(each.split(per_pass) for each in inputs), strict=True)]
    if isinstance(parts[0], Tensor):
        return torch.cat(cast("list[Tensor]", parts))  # type: ignore[return-value]
    return type(parts[0])(*(torch.cat(each) for each in zip(*parts, strict=True)))


def default_layers(depth: int) -> int:
    """Layers that make up the feature of a network where that is not given: a quarter of them, four at most."""
    return min(max(depth // 4, 1), 4)


def check_views(images: Tensor, masks: Tensor, size: int) -> None:
    """Raise ``ValueError`` for images and masks that aren't (B, 3, size, size) and (B, 1, size, size)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        msg = f"`images` must have shape (B, 3, {size}, {size}), got {tuple(images.shape)}; resize or set `image_size`."
        raise ValueError(msg)
    if masks.ndim != 4 or masks.shape[1] != 1:
        hint = "call `masks.unsqueeze(1)`" if masks.ndim == 3 else "give one channel per mask"
        msg = f"`masks` must have shape (B, 1, H, W), got {tuple(masks.shape)}; {hint}."
        raise ValueError(msg)
    if tuple(masks.shape[2:]) != (size, size):
        msg = f"`masks` must be {size} x {size} pixels like the images, got {tuple(masks.shape)}; resize them."
        raise ValueError(msg)
    if masks.shape[0] != images.shape[0]:
        msg = f"`masks` must be as many as `images`, got {masks.shape[0]} and {images.shape[0]}."
        raise ValueError(msg)


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise ``ValueError`` for a setting that the backbone can't have: not between `low` and `high`."""
    if not low <= value <= high:
        msg = f"`{name}` must be between {low} and {high} for this backbone, got {value}."
        raise ValueError(msg)
