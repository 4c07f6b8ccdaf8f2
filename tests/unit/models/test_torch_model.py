# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.clustering.clustering import unit_rows
from anomalib_ncd.models.describer import FrozenFeatures, PlainFeatures
from anomalib_ncd.models.encoders.vit import MaskGuidedVit
from anomalib_ncd.models.losses import AnomalyNcdLoss
from anomalib_ncd.models.torch_model import AnomalyNcdModel, ProjectionHead, PrototypeHeads


@pytest.fixture(scope="module")
def reference(golden_dir):
    stored = np.load(golden_dir / "heads.npz")
    return {key: torch.from_numpy(stored[key]) for key in stored}


@torch.no_grad()
def test_golden_projector(reference):
    head = ProjectionHead(48, hidden_dim=64, out_dim=32)
    head.load_state_dict({key[6:]: value for key, value in reference.items() if key.startswith("state/mlp")})
    torch.testing.assert_close(head(reference["features"]), reference["projections"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_golden_prototypes(reference):
    heads = PrototypeHeads(48, num_classes=7, num_heads=2)
    heads.weight.copy_(torch.stack([reference[f"state/last_layer.{i}.weight_v"] for i in range(2)]))
    torch.testing.assert_close(heads(reference["features"]), reference["logits"], rtol=0, atol=1e-5)


def test_prototypes_match_weight_norm_and_its_gradients():
    torch.manual_seed(0)
    features, heads = torch.randn(6, 16), PrototypeHeads(16, num_classes=5, num_heads=3)
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    logits = heads(features)
    F.cross_entropy(logits[1] / 0.1, targets).backward()

    oracle = weight_norm(nn.Linear(16, 5, bias=False))
    with torch.no_grad():
        oracle.weight_v.copy_(heads.weight[1])
        oracle.weight_g.fill_(1)
    expected = oracle(F.normalize(features, dim=-1))
    F.cross_entropy(expected / 0.1, targets).backward()
    torch.testing.assert_close(logits[1], expected)
    torch.testing.assert_close(heads.weight.grad[1], oracle.weight_v.grad)
    assert not heads.weight.grad[[0, 2]].any()


def test_logits_ignore_the_norms_of_features_and_prototypes():
    heads, features = PrototypeHeads(16, num_classes=5), torch.randn(6, 16)
    logits = heads(features)
    with torch.no_grad():
        heads.weight.mul_(7)
    torch.testing.assert_close(heads(features * 100), logits)


def test_starts_of_the_authors():
    torch.manual_seed(0)
    heads = PrototypeHeads(64, num_classes=50, num_heads=4)
    bound = 1 / math.sqrt(64)  # nn.Linear's own
    assert heads.weight.abs().max() <= bound
    assert heads.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not torch.equal(heads.weight[0], heads.weight[1])
    projector = ProjectionHead(64, hidden_dim=128, out_dim=32)
    for layer in projector.mlp[::2]:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()


def test_default_sizes_are_the_papers():
    projector = ProjectionHead(8)
    assert [tuple(layer.weight.shape) for layer in projector.mlp[::2]] == [(2048, 8), (2048, 2048), (256, 2048)]
    assert PrototypeHeads(8, num_classes=3).weight.shape == (4, 3, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_zero_and_huge_features_in_any_precision(dtype):
    heads = PrototypeHeads(8, num_classes=3).to(dtype)
    features = torch.stack([torch.zeros(8), torch.full((8,), 6e4), torch.full((8,), 1e-7)]).to(dtype)
    logits = heads(features)
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    assert not logits[:, 0].any()


def test_autocast_of_heads_is_finite():
    heads, projector = PrototypeHeads(8, num_classes=3), ProjectionHead(8, 16, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert heads(torch.zeros(2, 8)).isfinite().all()
        assert projector(torch.randn(2, 8)).isfinite().all()


@pytest.mark.parametrize("name", ["in_dim", "num_classes", "num_heads"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        PrototypeHeads(**{"in_dim": 8, "num_classes": 3, "num_heads": 2, name: 0})


def test_unit_rows_keep_shape_and_type():
    vectors = torch.randn(2, 3, 4, dtype=torch.float64)
    assert unit_rows(vectors).dtype == torch.float64
    torch.testing.assert_close(unit_rows(vectors).norm(dim=-1), torch.ones(2, 3, dtype=torch.float64))


@pytest.fixture
def model():
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=0)
    describer = FrozenFeatures(MaskGuidedVit(vit, mask_layers=2))
    return AnomalyNcdModel(
        describer, ClassSlots(("a", "b"), 3), num_heads=2, projection_hidden_dim=32, projection_dim=16
    )


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(8, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1
    return torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator), masks


def test_shapes(model, views):
    output = model(model.describer.frozen(*views))
    assert output.features.shape == (8, 24)
    assert output.projections.shape == (8, 16)
    assert output.logits.shape == (2, 8, 5)


def test_default_projector_is_the_papers():
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=0)
    model = AnomalyNcdModel(FrozenFeatures(MaskGuidedVit(vit)), ClassSlots((), 5))
    assert model.projector.mlp[-1].weight.shape == (256, 2048)
    assert model.heads.weight.shape == (4, 5, 24)


@torch.no_grad()
def test_logits_are_those_of_the_described_regions(model, views):
    model.eval()
    torch.testing.assert_close(
        model(model.describer.frozen(*views)).logits, model.heads(model.describer(*views).feature)
    )


def test_only_the_last_block_and_the_heads_learn(model, views):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    _, projections, logits = model(model.describer.frozen(*views))
    labels, is_base = torch.tensor([0, 1, 0, 0]), torch.tensor([True, True, False, False])
    AnomalyNcdLoss(2)(projections, logits, labels, is_base, torch.full((4,), 0.9), 0).total.backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith(("describer.encoder.backbone.blocks.2.", "heads.", "projector.")) for name in changed)
    assert {"describer.encoder.backbone.blocks.2.attn.qkv.weight", "heads.weight", "projector.mlp.0.weight"} <= changed


@torch.no_grad()
def test_autocast_is_finite(model, views):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(model.describer.frozen(*views))
    assert all(part.isfinite().all() for part in output)


class NoDoubles(TorchDispatchMode):
    """Any device without double precision, as Apple's GPUs are, for code that doesn't go to the CPU on its way."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                message = f"{func} makes a tensor of double precision"
                raise TypeError(message)
        return found


def test_network_and_losses_need_no_double_precision(model, views):
    labels, scores = torch.tensor([0, 1, 0, 0]), torch.full((4,), 0.9)
    is_base = torch.tensor([True, True, False, False])
    with NoDoubles():
        with pytest.raises(TypeError, match="double precision"):
            scores.double()
        output = model(model.describer.frozen(*views))
        loss = AnomalyNcdLoss(2)(output.projections, output.logits, labels, is_base, scores, 0).total
        loss.backward()
        feature, reference, _ = model.eval().describer(*views)
        model.heads(feature)
        model.rejection.fit(reference, torch.arange(8))
        model.rejection(reference)
    assert loss.dtype == torch.float32


def test_plain_features_are_not_trained():
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=0)
    model = AnomalyNcdModel(PlainFeatures(MaskGuidedVit(vit)), ClassSlots((), 3))
    with pytest.raises(TypeError, match="Only FrozenFeatures can be trained, got PlainFeatures"):
        _ = model.trained_describer
