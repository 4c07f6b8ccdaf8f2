# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from argparse import Namespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from anomalib_ncd.models.encoders.weights import fitting_backbone, load_weights, read_state

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}
DINOV3 = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "dinov3", "rope_rotate_half": True}
DINOV3 |= {"num_reg_tokens": 4, "use_fc_norm": False, "init_values": 0.1, "dynamic_img_size": True}


def make(network_class=VisionTransformer, seed=0, **options):
    torch.manual_seed(seed)
    network = network_class(**{**SIZES, **options}).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def assert_same_features(network, other):
    images = torch.randn(2, 3, *network.patch_embed.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network.forward_features(images), other.forward_features(images))


def save(state, path):
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def parts_of_qkv(state, prefix, names):
    """Queries, keys and values apart, as Hugging Face keeps them."""
    return {
        f"{prefix}{name}.{kind}": part
        for kind in ("weight", "bias")
        if f"qkv.{kind}" in state
        for name, part in zip(names, state[f"qkv.{kind}"].chunk(3), strict=True)
    }


def by_block(state):
    """Keys of a block of timm's, block by block, and all others."""
    blocks, others = {}, {}
    for key, value in state.items():
        if key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            blocks.setdefault(number, {})[rest] = value
        else:
            others[key] = value
    return blocks, others


def as_hugging_face_vit(state, prefix="vit."):
    """Names of ``ViTForImageClassification`` and ``DeiTModel``."""
    blocks, others = by_block(state)
    names = {"cls_token": "cls_token", "pos_embed": "position_embeddings", "dist_token": "distillation_token"}
    found = {f"embeddings.{new}": others[old] for old, new in names.items() if old in others}
    for kind in ("weight", "bias"):
        found[f"embeddings.patch_embeddings.projection.{kind}"] = others[f"patch_embed.proj.{kind}"]
        found[f"layernorm.{kind}"] = others[f"norm.{kind}"]
        found[f"pooler.dense.{kind}"] = torch.zeros(24)
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense"}
    names |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    for number, block in blocks.items():
        place = f"encoder.layer.{number}."
        for old, new in names.items():
            found |= {f"{place}{new}.{kind}": block[f"{old}.{kind}"] for kind in ("weight", "bias")}
        qkv = {key.removeprefix("attn."): value for key, value in block.items()}
        found |= parts_of_qkv(qkv, place + "attention.attention.", ("query", "key", "value"))
    return {prefix + key: value for key, value in found.items()} | {"classifier.weight": torch.zeros(10, 24)}


def as_hugging_face_dinov2(state):
    """Names of ``Dinov2Model`` and ``Dinov2WithRegistersModel``."""
    blocks, others = by_block(state)
    found = {"embeddings.mask_token": torch.zeros(1, 24), "embeddings.cls_token": others["cls_token"]}
    found["embeddings.position_embeddings"] = others["pos_embed"]
    if "reg_token" in others:
        found["embeddings.register_tokens"] = others["reg_token"]
        first = torch.ones(1, 1, 24)  # is added to CLS, which timm does beforehand
        found["embeddings.cls_token"] = others["cls_token"] - first
        found["embeddings.position_embeddings"] = torch.cat([first, others["pos_embed"]], dim=1)
    for kind in ("weight", "bias"):
        found[f"embeddings.patch_embeddings.projection.{kind}"] = others[f"patch_embed.proj.{kind}"]
        found[f"layernorm.{kind}"] = others[f"norm.{kind}"]
    names = {"attn.proj.": "attention.output.dense.", "ls1.gamma": "layer_scale1.lambda1"}
    names |= {"ls2.gamma": "layer_scale2.lambda1"}
    for number, block in blocks.items():
        place = f"encoder.layer.{number}."
        for key, value in block.items():
            if "qkv" not in key:
                old = next((old for old in names if key.startswith(old)), "")
                found[place + names.get(old, "") + key.removeprefix(old)] = value
        qkv = {key.removeprefix("attn."): value for key, value in block.items()}
        found |= parts_of_qkv(qkv, place + "attention.attention.", ("query", "key", "value"))
    return found


def as_hugging_face_dinov3(state, layer="layer."):
    """Names of ``DINOv3ViTModel``, whose keys have no bias."""
    blocks, others = by_block(state)
    found = {f"embeddings.{name}": others[name] for name in ("cls_token",)}
    found |= {"embeddings.mask_token": torch.zeros(1, 1, 24), "embeddings.register_tokens": others["reg_token"]}
    for kind in ("weight", "bias"):
        found[f"embeddings.patch_embeddings.{kind}"] = others[f"patch_embed.proj.{kind}"]
        found[f"norm.{kind}"] = others[f"norm.{kind}"]
    names = {"attn.proj.": "attention.o_proj.", "gamma_1": "layer_scale1.lambda1", "gamma_2": "layer_scale2.lambda1"}
    names |= {"mlp.fc1.": "mlp.up_proj.", "mlp.fc2.": "mlp.down_proj."}
    names |= {"mlp.fc1_g.": "mlp.gate_proj.", "mlp.fc1_x.": "mlp.up_proj."}
    names |= {"attn.q_bias": "attention.q_proj.bias", "attn.v_bias": "attention.v_proj.bias"}
    for number, block in blocks.items():
        place = f"{layer}{number}."
        for key, value in block.items():
            if "qkv" not in key:
                old = next((old for old in names if key.startswith(old)), "")
                found[place + names.get(old, "") + key.removeprefix(old)] = value
        qkv = {"qkv.weight": block["attn.qkv.weight"]}
        found |= parts_of_qkv(qkv, place + "attention.", ("q_proj", "k_proj", "v_proj"))
        if "attn.q_bias" not in block:
            found |= {f"{place}attention.{part}_proj.bias": torch.zeros(24) for part in "qv"}
    return found


def as_meta_dinov3(state):
    """Names of DINOv3's own checkpoints."""
    blocks, others = by_block(state)
    found = {
        "mask_token": torch.zeros(1, 24),
        "storage_tokens": others.pop("reg_token"),
        "rope_embed.periods": torch.ones(2),
    }
    for number, block in blocks.items():
        bias = torch.cat([block.pop("attn.q_bias"), torch.zeros(24), block.pop("attn.v_bias")])
        block |= {"attn.qkv.bias": bias, "attn.qkv.bias_mask": torch.full((72,), torch.nan)}
        block |= {"ls1.gamma": block.pop("gamma_1"), "ls2.gamma": block.pop("gamma_2")}
        found |= {f"blocks.{number}.{key}": value for key, value in block.items()}
    return found | others


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors", ""])
def test_formats_are_told_by_their_content(tmp_path, suffix):
    source, path = make(), tmp_path / f"weights{suffix}"
    save(source.state_dict(), path)
    network = make(seed=1)
    load_weights(network, path, "small")
    assert_same_features(network, source)


def test_a_blob_of_a_hubs_cache_is_read_as_safetensors(tmp_path):
    source, network = make(), make(seed=1)
    save(source.state_dict(), tmp_path / "model.safetensors").rename(tmp_path / ("a1" * 32))
    load_weights(network, tmp_path / ("a1" * 32), "small")
    assert_same_features(network, source)


@pytest.mark.parametrize("wrap", ["state_dict", "model", "teacher", "student", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "teacher.", "student.", "encoder."])
def test_checkpoints_of_training_load(tmp_path, wrap, prefix):
    source, network = make(), make(seed=1)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    state |= {"head.mlp.0.weight": torch.zeros(3, 3), "prototypes.weight": torch.zeros(3)}
    path = save({wrap: state, "epoch": 3, "args": Namespace(lr=0.1), "optimizer": {"state": {}}}, tmp_path / "last.pth")
    load_weights(network, path, "small")
    assert_same_features(network, source)


def test_of_teacher_and_student_the_teacher_is_taken(tmp_path):
    teacher, student, network = make(), make(seed=2), make(seed=1)
    parts = {"student": student, "teacher": teacher}
    flat = {f"{name}.backbone.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    nested = {
        name: {f"module.{key}": value for key, value in part.state_dict().items()} for name, part in parts.items()
    }
    for number, found in enumerate((flat, {"state_dict": flat}, nested)):
        load_weights(network, save(found, tmp_path / f"{number}.pth"), "small")
        assert_same_features(network, teacher)


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}]
)
def test_checkpoints_of_convolutional_networks_load(tmp_path, wrap):
    torch.manual_seed(0)
    source = timm.create_model("resnet10t", pretrained=False)  # with a classifier, as they are published
    network = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    load_weights(network, save(wrap(source.state_dict()), tmp_path / "weights.pth"), "resnet10t")
    torch.testing.assert_close(network.layer4.state_dict(), source.layer4.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "vit.", "module.vit."])
def test_a_vit_of_hugging_face_loads(tmp_path, prefix):
    source, network = make(qkv_bias=True), make(seed=1, qkv_bias=True)
    load_weights(
        network, save(as_hugging_face_vit(source.state_dict(), prefix), tmp_path / "model.safetensors"), "small"
    )
    assert_same_features(network, source)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4, "no_embed_class": True}], ids=["plain", "registers"])
def test_a_dinov2_of_hugging_face_loads(tmp_path, options):
    options = {"qkv_bias": True, "init_values": 0.1, **options}
    source, network = make(**options), make(seed=1, **options)
    with torch.no_grad():  # so that adding to CLS, and taking away, is exact
        source.cls_token.copy_(source.cls_token.half())
    load_weights(network, save(as_hugging_face_dinov2(source.state_dict()), tmp_path / "model.safetensors"), "small")
    torch.testing.assert_close(network.cls_token, source.cls_token)
    network.cls_token.data.copy_(source.cls_token)
    assert_same_features(network, source)


@pytest.mark.parametrize("options", [{"qkv_bias": False}, {"qkv_bias": True}, {"swiglu_mlp": True, "scale_mlp": False}])
@pytest.mark.parametrize("layer", ["layer.", "model.layer."])
def test_a_dinov3_of_hugging_face_loads(tmp_path, options, layer):
    if options.get("swiglu_mlp"):
        options = options | {"swiglu_align_to": 8}
    source, network = make(Eva, **DINOV3, **options), make(Eva, seed=1, **DINOV3, **options)
    load_weights(
        network, save(as_hugging_face_dinov3(source.state_dict(), layer), tmp_path / "model.safetensors"), "small"
    )
    assert_same_features(network, source)


def test_a_dinov3_of_its_authors_loads(tmp_path, capsys):
    source, network = make(Eva, **DINOV3, qkv_bias=True), make(Eva, seed=1, **DINOV3, qkv_bias=True)
    load_weights(network, save(as_meta_dinov3(source.state_dict()), tmp_path / "dinov3.pth"), "small")
    assert_same_features(network, source)
    assert not capsys.readouterr().out


def test_biases_that_a_dinov3_lacks_must_be_zero(tmp_path):
    state = as_meta_dinov3(make(Eva, **DINOV3, qkv_bias=True).state_dict())
    with pytest.raises(ValueError, match="q_bias"):
        load_weights(make(Eva, **DINOV3, qkv_bias=False), save(state, tmp_path / "dinov3.pth"), "small")
    source = make(Eva, **DINOV3, qkv_bias=False)
    zeros = {f"blocks.{number}.attn.{part}_bias": torch.zeros(24) for number in range(2) for part in "qv"}
    network = make(Eva, seed=1, **DINOV3, qkv_bias=False)
    load_weights(network, save(as_meta_dinov3(source.state_dict() | zeros), tmp_path / "zeros.pth"), "small")
    assert_same_features(network, source)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"patch_size": 16}, "patches of 16 pixels and width 24, not 8 and 24"),
        ({"embed_dim": 48}, "patches of 8 pixels and width 48, not 8 and 24"),
        ({"depth": 3}, r"not of this network \['blocks.2"),
        ({"depth": 1}, r"missing \['blocks.1"),
        ({"reg_tokens": 2}, "pos_embed"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, options, match):
    path = save(make(**options).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth' do not fit 'small' \(.*{match}.*give the file that belongs"):
        load_weights(make(), path, "small")


@pytest.mark.parametrize(
    "name", ["deit_small_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_dinov2"]
)
def test_the_backbone_that_fits_is_named(name, tmp_path):
    source = timm.create_model(name, pretrained=False, num_classes=0, img_size=112)
    path = save(source.state_dict(), tmp_path / "weights.safetensors")
    fitting = name.replace("deit_small", "vit_small")
    with pytest.raises(ValueError, match=f"or `backbone='{fitting}'`, which fits it"):
        load_weights(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0), path, "tiny")


def test_dinov3_and_unknown_ones_are_named_or_not():
    patches = {"patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}
    assert fitting_backbone(patches | {"reg_token": torch.zeros(1, 4, 384)}) == "vit_small_patch16_dinov3"
    biases = {"reg_token": torch.zeros(1, 4, 384), "blocks.0.attn.q_bias": torch.zeros(384)}
    assert fitting_backbone(patches | biases) == "vit_small_patch16_dinov3_qkvb"
    assert fitting_backbone({"patch_embed.proj.weight": torch.zeros(383, 3, 16, 16)}) is None
    assert fitting_backbone({}) is None


def test_numpy_files_are_refused(tmp_path):
    np.savez(tmp_path / "vit.npz", **{"embedding/kernel": np.zeros((8, 8, 3, 24)), "Transformer/x": np.zeros(1)})
    with pytest.raises(ValueError, match=r"vit\.npz' can't be read as weights .*must be a safetensors or PyTorch file"):
        load_weights(make(), tmp_path / "vit.npz", "small")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    state = make().state_dict()
    state["blocks.1.mlp.fc1.weight"][3, 4] = value
    with pytest.raises(ValueError, match=r"NaN or infinity in \['blocks.1.mlp.fc1.weight'\]; the file is damaged"):
        load_weights(make(), save(state, tmp_path / "weights.pth"), "small")


def test_pointers_of_git_lfs_are_told(tmp_path):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / "model.safetensors").write_text(text)
    with pytest.raises(ValueError, match=r"model.safetensors' is a pointer of Git LFS.*`git lfs pull`"):
        read_state(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"not weights", b"<!DOCTYPE html>", b"PK\x03\x04broken", b"\x80\x02broken"])
def test_files_of_something_else_are_refused(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights.pth' can't be read as weights.*damaged; fetch it again"):
        read_state(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, nn.Linear])
def test_files_without_tensors_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")  # a class: refused by the reader that runs nothing
    with pytest.raises(ValueError, match="can't be read as weights"):
        read_state(tmp_path / "weights.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`backbone_weights` must be an existing file, got .*none\.pth"):
        read_state(tmp_path / "none.pth")
