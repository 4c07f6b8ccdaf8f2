# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Networks from timm, with weights from a file, from timm's cache or from the model hub."""

import difflib
import logging
import ssl
import threading
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
from huggingface_hub import constants, try_to_load_from_cache
from timm.data import resolve_model_data_config
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, is_model, load_checkpoint
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

logger = logging.getLogger(__name__)

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for in a hub repository, in its order
HUB_TIMEOUT_S = 3.0
# Keys under these names belong to the network's trunk: one that finds no place means another architecture.
TRUNK_KEYS = ("blocks.", "patch_embed.", "cls_token", "dist_token", "reg_token", "pos_embed", "norm.", "norm_pre.")


def build_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    pretrained: bool = True,
    image_size: int = 224,
) -> VisionTransformer:
    """Build a timm Vision Transformer without a classifier.

    Weights come from ``weights`` where it is given; else, with ``pretrained``, from the cache of the model hub, and
    from the hub itself only if the cache lacks them. Position embeddings are resampled to ``image_size``.

    Args:
        name: A timm name, with or without a tag, such as ``"vit_base_patch8_224.dino"``.
        weights: A local file of weights for ``name`` (``.safetensors``, ``.pth``, ``.bin`` or ``.npz``).
        pretrained: Whether to load timm's weights if ``weights`` is not given; ``False`` leaves them random.
        image_size: Side in pixels of the square images; a multiple of the patch size.

    Returns:
        The network, in training mode and with all its parameters trainable, as timm builds it.

    Raises:
        ValueError: If the name is unknown, the size does not fit, there are no published weights under that name or
            the file holds the weights of another network.
        TypeError: If the name is not that of a Vision Transformer with a class token.
        FileNotFoundError: If ``weights`` does not exist.
        RuntimeError: If the weights are not in the cache and the hub is out of reach.

    Example:
        >>> backbone = build_backbone("vit_tiny_patch16_224", pretrained=False, image_size=64)
        >>> backbone.patch_embed.grid_size
        (4, 4)
    """
    _check_name(name)
    backbone = require_vit(_untrained(name, image_size), name)
    return require_vit(_filled(backbone, name, weights, pretrained, image_size), name)


def build_network(
    name: str,
    weights: str | Path | None = None,
    *,
    pretrained: bool = True,
    image_size: int = 224,
) -> nn.Module:
    """Build any network of timm without a classifier, with weights from the same places as ``build_backbone``.

    Args:
        name: A timm name, with or without a tag, such as ``"resnet18"``.
        weights: A local file of weights for ``name``.
        pretrained: Whether to load timm's weights if ``weights`` is not given; ``False`` leaves them random.
        image_size: Side in pixels of the square images, where the network is built for one size.

    Returns:
        The network, in training mode and with all its parameters trainable, as timm builds it.

    Raises:
        ValueError: If the name is unknown, the size does not fit, there are no published weights under that name or
            the file holds the weights of another network.
        FileNotFoundError: If ``weights`` does not exist.
        RuntimeError: If the weights are not in the cache and the hub is out of reach.

    Example:
        >>> build_network("resnet18", pretrained=False).num_features
        512
    """
    _check_name(name)
    return _filled(_untrained(name, image_size), name, weights, pretrained, image_size)


def is_cached(name: str) -> bool:
    """Tell whether timm's weights of a network are in the cache of the hub; no request is made."""
    config = get_pretrained_cfg(name)
    repo, _, revision = ((config and config.hf_hub_id) or "").partition("@")
    return bool(repo) and _cached_file(repo, revision or None, config.hf_hub_filename) is not None


def preprocessing_of(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the weights of a backbone expect.

    Args:
        backbone: A network of timm.

    Returns:
        Mean and standard deviation, each of three numbers in RGB order, for images in [0, 1].

    Example:
        >>> preprocessing_of(build_backbone("deit_tiny_patch16_224", pretrained=False))
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    """
    config = resolve_model_data_config(backbone)
    return tuple(config["mean"]), tuple(config["std"])


def require_vit(backbone: object, name: str) -> VisionTransformer:
    """Refuse whatever is not a timm Vision Transformer with a class token.

    Args:
        backbone: The network to check.
        name: What to call it in the message.

    Returns:
        The network itself.

    Raises:
        TypeError: If it is another network, or has no class token to guide.
    """
    if isinstance(backbone, VisionTransformer) and backbone.has_class_token:
        return backbone
    what = "has no class token" if isinstance(backbone, VisionTransformer) else f"is a {type(backbone).__name__}"
    msg = (
        f"the backbone must be a timm VisionTransformer with a class token, but {name!r} {what}; only ViTs are taken, "
        f"such as 'vit_base_patch8_224.dino' or 'deit_tiny_patch16_224'."
    )
    raise TypeError(msg)


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


def _untrained(name: str, image_size: int) -> nn.Module:
    """Build the network with random weights."""
    network = _create(name, image_size, pretrained=False)
    if isinstance(network, VisionTransformer):
        patch_size = network.patch_embed.patch_size[0]
        if image_size < patch_size or image_size % patch_size:
            msg = f"`image_size` must be a multiple of the patch size {patch_size} of {name!r}, got {image_size}."
            raise ValueError(msg)
    return network


def _create(name: str, image_size: int, *, pretrained: bool) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=image_size)
    except TypeError:  # convolutional networks have no `img_size`
        return timm.create_model(name, pretrained=pretrained, num_classes=0)


def _filled(
    network: nn.Module,
    name: str,
    weights: str | Path | None,
    pretrained: bool,
    image_size: int,
) -> nn.Module:
    """Fill the network from the file, else with published weights where they are wanted."""
    if weights is None:
        return _load_published(network, name, image_size) if pretrained else network
    if not Path(weights).is_file():
        msg = f"`backbone_weights` must be an existing file, got {str(weights)!r}; check the path."
        raise FileNotFoundError(msg)
    _load_file(network, Path(weights), name)
    return network


def _load_file(backbone: nn.Module, path: Path, name: str) -> None:
    """Fill the network from a file; every part of its trunk must be found there."""
    to_timm = partial(checkpoint_filter_fn, adapt_layer_scale=True) if isinstance(backbone, VisionTransformer) else None
    try:
        keys = load_checkpoint(backbone, str(path), strict=False, filter_fn=to_timm, weights_only=True)
    except Exception as error:
        # Readers and converters of the many formats raise errors of many kinds; they all say the same.
        raise ValueError(_misfit(path, name, str(error))) from error
    if keys is None:  # .npz: timm's own loader fills the network key by key and raises what it misses
        return
    foreign = [key for key in keys.unexpected_keys if _is_foreign(backbone, key)]
    if keys.missing_keys or foreign:
        reason = f"missing {keys.missing_keys[:3]}, not of this network {foreign[:3]}"
        raise ValueError(_misfit(path, name, reason))


def _is_foreign(backbone: nn.Module, key: str) -> bool:
    """Whether a key that found no place means another network; those of the classifier that was left out do not."""
    if isinstance(backbone, VisionTransformer):
        return key.startswith(TRUNK_KEYS)
    classifier = cast("dict[str, Any]", backbone.pretrained_cfg).get("classifier") or ()
    return not key.startswith((classifier,) if isinstance(classifier, str) else tuple(classifier))


def _misfit(path: Path, name: str, reason: str) -> str:
    return (
        f"the weights in {str(path)!r} do not fit {name!r} ({reason[:300]}); "
        f"give the file that belongs to this backbone, or the backbone that belongs to this file."
    )


def _load_published(backbone: nn.Module, name: str, image_size: int) -> nn.Module:
    """Fill the network with timm's weights: from the cache without any request, else from the hub."""
    config = cast("dict[str, Any]", backbone.pretrained_cfg)
    repo, _, revision = (config.get("hf_hub_id") or "").partition("@")
    if not repo:
        msg = (
            f"timm's hub has no weights for {name!r}; choose another name from `timm.list_pretrained()`, "
            f"pass a local file as `backbone_weights`, or `pretrained=False` for random weights."
        )
        raise ValueError(msg)
    cached = _cached_file(repo, revision or None, config.get("hf_hub_filename"))
    if cached is not None:
        _load_file(backbone, cached, name)
        return backbone
    if constants.HF_HUB_OFFLINE:
        raise RuntimeError(_out_of_reach(name, repo, "HF_HUB_OFFLINE is set"))
    if not _hub_answers(constants.ENDPOINT):
        raise RuntimeError(_out_of_reach(name, repo, f"{constants.ENDPOINT} does not answer"))
    try:
        return _create(name, image_size, pretrained=True)
    except OSError as error:  # every error of the hub's client is one
        raise RuntimeError(_out_of_reach(name, repo, str(error))) from error


def _cached_file(repo: str, revision: str | None, filename: str | None) -> Path | None:
    """Find the weights in the cache of the hub."""
    for candidate in (filename,) if filename else HUB_FILES:
        found = try_to_load_from_cache(repo, candidate, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _out_of_reach(name: str, repo: str, reason: str) -> str:
    return (
        f"the weights of {name!r} are not in the cache and cannot be fetched: {reason}. Either pass a local file as "
        f"`backbone_weights`, or run once where the hub can be reached and copy the folder of {repo!r} into the cache, "
        f"{constants.HF_HUB_CACHE!r} (moved by the variable HF_HOME)."
    )


def _hub_answers(endpoint: str, timeout_s: float = HUB_TIMEOUT_S) -> bool:
    """Tell whether the hub answers at all, through the proxies of the environment.

    The hub's own client retries for half a minute. Its name may also take that long to resolve, which no socket
    timeout bounds: hence the thread, which is left behind when its time is up.
    """
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_request(endpoint, timeout_s)), daemon=True)
    thread.start()
    thread.join(2 * timeout_s)
    return any(answers)


def _request(endpoint: str, timeout_s: float) -> bool:
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 the endpoint is the hub client's own
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True  # refused, but there
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the hub's client has certificates of its own
    except (OSError, ValueError) as error:
        logger.debug("No answer from %s: %s", endpoint, error)
        return False
