# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Weights from files: of timm, of the training of DINO and its successors, and of Hugging Face's models."""

from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from timm.models import eva, vision_transformer
from torch import Tensor, nn

POINTER_START = b"version https://git-lfs"
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
# Parts of a checkpoint that hold a network, the best first: averages over training, and the teacher, which is one.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student", "module", "backbone")
PREFIXES = {*NESTED, "ema", "encoder", "net", "network", "vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit"}
PREFIXES |= {"_orig_mod", "base_model", "image_encoder", "visual", "trunk", "feature_extractor"}
# Keys under these names belong to the network's trunk: one that finds no place means another architecture.
TRUNK_KEYS = ("blocks.", "patch_embed.", "cls_token", "dist_token", "reg_token", "pos_embed", "norm.", "norm_pre.")
PATCH_KEY = "patch_embed.proj.weight"
HUGGING_FACE_PATCH_KEYS = ("embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.weight")
# Names of Hugging Face's ViT, DeiT, DINOv2 and DINOv3, and what they are called here; replaced one after the other.
HUGGING_FACE_NAMES = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.patch_embeddings.", "patch_embed.proj."),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("model.layer.", "blocks."),
    ("layer.", "blocks."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("layernorm.", "norm."),
    ("attention.attention.query.", "attn.q_proj."),
    ("attention.attention.key.", "attn.k_proj."),
    ("attention.attention.value.", "attn.v_proj."),
    ("attention.output.dense.", "attn.proj."),
    ("attention.o_proj.", "attn.proj."),
    (".attention.", ".attn."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.weights_in.", "mlp.fc1."),
    ("mlp.weights_out.", "mlp.fc2."),
    ("mlp.down_proj.", "mlp.fc2."),
)
SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1536: "giant"}


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Fill a network from a ``.safetensors``, ``.pth`` or ``.bin`` file, told by its content.

    Every part of the network's trunk must be found there; ``ValueError`` if the file holds no weights, damaged ones or
    those of another network.
    """
    state = read_state(path)
    state = _converted(state, network)
    _check_patches(state, network, path, name)
    try:
        keys = network.load_state_dict(_resampled(state, network), strict=False)
    except Exception as error:
        # timm's converters raise errors of many kinds; they all say the same.
        raise ValueError(_misfit(path, name, str(error), state)) from error
    foreign = [key for key in keys.unexpected_keys if _is_foreign(network, key)]
    if keys.missing_keys or foreign:
        reason = f"missing {keys.missing_keys[:3]}, not of this network {foreign[:3]}"
        raise ValueError(_misfit(path, name, reason, state))
    refuse_broken(network, path)


def refuse_broken(network: nn.Module, path: Path) -> None:
    """Raise ``ValueError`` if a weight of a network, filled from a file, is NaN or infinite."""
    broken = [key for key, value in network.state_dict().items() if not value.isfinite().all()]
    if broken:
        msg = f"the weights in {str(path)!r} hold NaN or infinity in {broken[:3]}; the file is damaged, fetch it again."
        raise ValueError(msg)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a file, told by its content, without running anything that may be in it.

    ``FileNotFoundError`` if there is no such file, ``ValueError`` if it holds no weights.
    """
    if not path.is_file():
        msg = f"`backbone_weights` must be an existing file, got {str(path)!r}; check the path."
        raise FileNotFoundError(msg)
    with path.open("rb") as stream:
        start = stream.read(64)
    if start.startswith(POINTER_START):
        msg = f"{str(path)!r} is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`."
        raise ValueError(msg)
    try:
        if start.startswith((ZIP_START, PICKLE_START)):
            with torch.serialization.safe_globals([Namespace]):  # the settings of a training, plain data
                return _network_of(torch.load(path, map_location="cpu", weights_only=True))
        return load_file(path)
    except Exception as error:
        # Readers of damaged files raise errors of many kinds.
        wanted = "it must be a safetensors or PyTorch file of tensors alone. If it is, it is damaged; fetch it again"
        msg = f"{str(path)!r} can't be read as weights ({str(error)[:200]}); {wanted}."
        raise ValueError(msg) from error


def _network_of(found: Any) -> dict[str, Tensor]:
    """Descend into a checkpoint until there are tensors."""
    while isinstance(found, dict):
        inner = next((found[part] for part in NESTED if isinstance(found.get(part), dict)), None)
        if inner is None:
            break
        found = inner
    state = {key: value for key, value in found.items() if isinstance(value, Tensor)} if isinstance(found, dict) else {}
    if not state:
        msg = f"it holds a {type(found).__name__} without tensors"
        raise ValueError(msg)
    return state


def _converted(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Bring the names of a state to those of timm."""
    is_vit = isinstance(network, vision_transformer.VisionTransformer | eva.Eva)
    anchors = (PATCH_KEY, *HUGGING_FACE_PATCH_KEYS) if is_vit else (next(iter(network.state_dict())),)
    state = _without_prefix(state, anchors)
    if any(key in state for key in HUGGING_FACE_PATCH_KEYS):
        state = _from_hugging_face(state, network)
    if isinstance(network, eva.Eva) and {"storage_tokens", "register_tokens"} & state.keys():
        state = _from_dinov3(state, network)
    elif "register_tokens" in state:
        state.setdefault("mask_token", torch.zeros(0))  # by which timm knows DINOv2
    return state


def _without_prefix(state: dict[str, Tensor], anchors: tuple[str, ...]) -> dict[str, Tensor]:
    """The part of a state that lies under the best prefix before one of the `anchors`."""
    found = [key[: -len(anchor)] for anchor in anchors for key in state if key.endswith(anchor)]
    known = [prefix for prefix in found if set(prefix.split(".")) <= PREFIXES | {""}]
    if not known:
        return state
    prefix = min(known, key=lambda one: ("ema" not in one, "teacher" not in one, len(one)))
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _from_hugging_face(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Rename what Hugging Face's models call otherwise, and join queries, keys and values."""
    gated = any(key.endswith("mlp.gate_proj.weight") for key in state)
    names = (*HUGGING_FACE_NAMES, ("mlp.gate_proj.", "mlp.fc1_g."), ("mlp.up_proj.", f"mlp.fc1{'_x' * gated}."))
    renamed = {}
    for key, value in state.items():
        for old, new in names:
            key = key.replace(old, new)  # noqa: PLW2901
        renamed[key] = value
    if "blocks.0.attn.q_proj.weight" in network.state_dict():
        return renamed
    for key in [key for key in renamed if ".attn.q_proj." in key]:
        parts = [renamed.pop(key.replace("q_proj", part), None) for part in ("q_proj", "k_proj", "v_proj")]
        whole = torch.cat([torch.zeros_like(cast("Tensor", parts[0])) if part is None else part for part in parts])
        renamed[key.replace("q_proj", "qkv")] = whole
    return renamed


def _from_dinov3(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Rename what DINOv3 calls otherwise; biases that the network lacks must be zero."""
    own, renamed = network.state_dict(), dict[str, Tensor]()
    for key, value in state.items():
        if key.startswith(("mask_token", "rope", "local_cls_norm", "projectors.")) or key.endswith(".bias_mask"):
            continue
        if key.endswith("attn.qkv.bias"):
            query, _, values = value.chunk(3)  # keys have no bias
            split = {key.replace("qkv.bias", "q_bias"): query, key.replace("qkv.bias", "v_bias"): values}
            renamed |= {name: part for name, part in split.items() if name in own or part.any()}
            continue
        name = key.replace("storage_tokens", "reg_token").replace("register_tokens", "reg_token")
        renamed[name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = value
    return renamed


def _resampled(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Bring position embeddings to the size of the network's images, by timm's own converters."""
    if isinstance(network, eva.Eva):
        return eva.checkpoint_filter_fn(state, network)
    if isinstance(network, vision_transformer.VisionTransformer):
        return vision_transformer.checkpoint_filter_fn(state, network, adapt_layer_scale=True)
    return state


def _check_patches(state: dict[str, Tensor], network: nn.Module, path: Path, name: str) -> None:
    """Refuse patches of another size or width, which timm would resample."""
    found, own = state.get(PATCH_KEY), network.state_dict().get(PATCH_KEY)
    if found is None or own is None:
        return
    sizes = [(each.shape[-1], each.shape[0]) for each in (found if found.ndim == 4 else own, own)]
    if sizes[0] != sizes[1]:
        reason = "patches of {} pixels and width {}, not {} and {}".format(*sizes[0], *sizes[1])
        raise ValueError(_misfit(path, name, reason, state))


def _is_foreign(network: nn.Module, key: str) -> bool:
    """Whether a key that found no place means another network; those of the classifier that was left out do not."""
    if isinstance(network, vision_transformer.VisionTransformer | eva.Eva):
        return key.startswith(TRUNK_KEYS)
    classifier = cast("dict[str, Any]", network.pretrained_cfg).get("classifier") or ()
    return not key.startswith((classifier,) if isinstance(classifier, str) else tuple(classifier))


def _misfit(path: Path, name: str, reason: str, state: dict[str, Tensor]) -> str:
    fitting = fitting_backbone(state)
    hint = "the backbone that belongs to this file" if fitting is None else f"`backbone={fitting!r}`, which fits it"
    return (
        f"the weights in {str(path)!r} do not fit {name!r} ({' '.join(reason.split())[:300]}); "
        f"give the file that belongs to this backbone, or {hint}."
    )


def fitting_backbone(state: dict[str, Tensor]) -> str | None:
    """Name of a ViT of timm that weights under timm's names fit, by patches, width and special tokens, or ``None``."""
    patches = state.get(PATCH_KEY)
    if patches is None or patches.ndim != 4:
        return None
    size, side = SIZES.get(patches.shape[0]), patches.shape[-1]
    if "dist_token" in state:
        name = f"deit_{size}_distilled_patch{side}_224"
    elif "pos_embed" not in state and "reg_token" in state:
        name = f"vit_{size}_patch{side}_dinov3" + "_qkvb" * any(key.endswith("q_bias") for key in state)
    elif "mask_token" in state or "blocks.0.ls1.gamma" in state:
        name = f"vit_{size}_patch{side}_{'reg4_' * ('register_tokens' in state or 'reg_token' in state)}dinov2"
    else:
        name = f"vit_{size}_patch{side}_224"
    return name if timm.is_model(name) else None
