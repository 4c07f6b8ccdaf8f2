# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.describer import FrozenFeatures
from anomalib_ncd.models.encoders.vit import MaskGuidedVit
from anomalib_ncd.models.losses import AnomalyNcdLoss
from anomalib_ncd.models.torch_model import AnomalyNcdModel


@pytest.fixture
def model():
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=0)
    describer = FrozenFeatures(MaskGuidedVit(vit, mask_layers=2), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
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
    model = AnomalyNcdModel(FrozenFeatures(MaskGuidedVit(vit), (0.5,) * 3, (0.5,) * 3), ClassSlots((), 5))
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
        feature, reference = model.eval().describer(*views)
        model.heads(feature)
        model.rejection.fit(reference, torch.arange(8))
        model.rejection(reference)
    assert loss.dtype == torch.float32
