# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A convolutional network of timm as a chain of modules, to be cut between a frozen and a trained part."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CHECK_SIZE_PX = 64


class Link(NamedTuple):
    """One module of the chain; its output is the input of the next one.

    Attributes:
        module: The module.
        is_scale: Whether timm counts its output among the network's feature maps, one per resolution.
        has_weights: Whether there is a convolution in it, as against a lone norm, activation or pooling.
    """

    module: nn.Module
    is_scale: bool
    has_weights: bool


def chain_of(backbone: nn.Module) -> list[Link]:
    """Cut a network into the modules that make its feature maps; what comes after the last map is left out.

    The chain is run once against the network's own features, so that no network passes whose modules do not simply
    follow one another; ``TypeError`` for others.

    Example:
        >>> import timm
        >>> links = chain_of(timm.create_model("resnet18", pretrained=False))
        >>> [type(link.module).__name__ for link in links if link.is_scale]
        ['ReLU', 'Sequential', 'Sequential', 'Sequential', 'Sequential']
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
    return [Link(module, path in scales, _has_convolution(module)) for path, module in modules.items()]


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


def _has_convolution(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) for part in module.modules())
