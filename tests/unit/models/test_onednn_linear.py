# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch import nn

from anomalib_ncd.models.onednn_linear import OneDnnLinear, use_onednn


@pytest.fixture
def convolutions(monkeypatch):
    """Shapes of all that is convolved."""
    shapes = []
    convolve = torch.mkldnn_convolution

    def note(image, *args, **kwargs):
        shapes.append(tuple(image.shape))
        return convolve(image, *args, **kwargs)

    monkeypatch.setattr(torch, "mkldnn_convolution", note)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 197, 64), (800, 64), (2, 3, 160, 64)])
@torch.no_grad()
def test_it_computes_what_a_linear_layer_does(convolutions, shape, bias):
    torch.manual_seed(0)
    layer, inputs = nn.Linear(64, 24, bias=bias), torch.randn(shape)
    own = OneDnnLinear.of(layer)
    torch.testing.assert_close(own(inputs), layer(inputs), rtol=1e-5, atol=1e-5)
    turned = torch.randn(shape[-1], *shape[:-1]).movedim(0, -1)  # rows that aren't contiguous
    torch.testing.assert_close(own(turned), layer(turned), rtol=1e-5, atol=1e-5)
    assert len(convolutions) == 2
    assert own.weight is layer.weight


def test_gradients_graphs_small_and_half_precision_inputs_take_the_plain_way(convolutions):
    own, inputs = OneDnnLinear.of(nn.Linear(64, 24)), torch.randn(800, 64)
    own(inputs).sum().backward()
    assert own.weight.grad is not None
    with torch.no_grad():
        own(inputs[:9])
        own(inputs[:0])
        with torch.autocast("cpu", torch.bfloat16):
            assert own(inputs).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            own(inputs)
        exported = torch.export.export(own.eval(), (inputs,))
        OneDnnLinear.of(nn.Linear(64, 24).double())(inputs.double())
    assert not any("conv" in str(node.target) for node in exported.graph.nodes)
    assert not convolutions


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
