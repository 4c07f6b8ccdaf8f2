# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from timm.layers import Mlp
from torch import nn
from torch.nn import functional as F

from anomalib_ncd.models.encoders import onednn_linear
from anomalib_ncd.models.encoders.onednn_linear import OneDnnLinear, use_onednn


@pytest.fixture
def calls(monkeypatch):
    """Shapes of all that oneDNN is asked to multiply."""
    shapes = []
    decide = onednn_linear._onednn_is_faster

    def note(inputs, weight):
        taken = decide(inputs, weight)
        shapes.extend([tuple(inputs.shape)] * taken)
        return taken

    monkeypatch.setattr(onednn_linear, "_onednn_is_faster", note)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_gelu", [True, False])
@pytest.mark.parametrize("shape", [(4, 197, 64), (800, 64), (2, 3, 160, 64)])
@torch.no_grad()
def test_it_computes_what_a_linear_layer_does(calls, shape, with_gelu, bias):
    torch.manual_seed(0)
    layer = nn.Linear(64, 24, bias=bias)
    own, plain = OneDnnLinear.of(layer, with_gelu=with_gelu), nn.Sequential(layer, *[nn.GELU()] * with_gelu)
    turned = torch.randn(shape[-1], *shape[:-1]).movedim(0, -1)  # rows that aren't contiguous
    for inputs in (torch.randn(shape), turned):
        torch.testing.assert_close(own(inputs), plain(inputs), rtol=1e-5, atol=2e-6)
    assert len(calls) == 2
    assert own.weight is layer.weight


def test_gradients_graphs_small_and_half_precision_inputs_take_the_plain_way(calls):
    own, inputs = OneDnnLinear.of(nn.Linear(64, 24), with_gelu=True), torch.randn(800, 64)
    own(inputs).sum().backward()
    assert own.weight.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(own(inputs[:9]), F.gelu(F.linear(inputs[:9], own.weight, own.bias)))
        own(inputs[:0])
        with torch.autocast("cpu", torch.bfloat16):
            assert own(inputs).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            own(inputs)
        exported = torch.export.export(own.eval(), (inputs,))
        OneDnnLinear.of(nn.Linear(64, 24).double())(inputs.double())
    assert not any("mkldnn" in str(node.target) for node in exported.graph.nodes)
    assert not calls


def test_layers_are_replaced_in_place_and_keep_their_names():
    class Adapter(nn.Linear):
        pass

    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.GELU(), nn.Linear(4, 5, bias=False)), Adapter(5, 6))
    module[1].eval()
    before = dict(module.named_parameters())
    use_onednn(module)
    assert [type(module[0]), type(module[1][1]), type(module[2])] == [OneDnnLinear, OneDnnLinear, Adapter]
    assert [module[0].training, module[1][1].training] == [True, False]
    after = dict(module.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


@torch.no_grad()
def test_the_activation_of_an_mlp_moves_into_its_first_layer(calls):
    torch.manual_seed(0)
    module, inputs = nn.Sequential(Mlp(64, 96), Mlp(64, 96, act_layer=nn.ReLU)), torch.randn(2, 200, 64)
    expected = module(inputs)
    use_onednn(module)
    assert [type(mlp.act) for mlp in module] == [nn.Identity, nn.ReLU]
    assert [mlp.fc1.with_gelu for mlp in module] == [True, False]
    torch.testing.assert_close(module(inputs), expected, rtol=1e-5, atol=2e-6)
    assert len(calls) == 4
