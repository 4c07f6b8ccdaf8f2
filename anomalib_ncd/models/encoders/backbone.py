# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Networks from timm, with weights from a file, from timm's cache or from the model hub."""

import difflib
from functools import partial
from pathlib import Path

import timm
from timm.data import resolve_model_data_config
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, is_model
from torch import nn

from anomalib_ncd.models.encoders.hub import load_published
from anomalib_ncd.models.encoders.weights import load_weights


def build_network(
    name: str,
    weights: str | Path | None = None,
    *,
    pretrained: bool = True,
    image_size: int | None = None,
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


def preprocessing_of(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that a network of timm expects, in RGB order, for images in [0, 1]."""
    config = resolve_model_data_config(backbone)
    return tuple(config["mean"]), tuple(config["std"])


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
