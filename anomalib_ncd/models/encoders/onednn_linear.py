# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Linear layers that multiply with oneDNN on a CPU."""

from __future__ import annotations

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

MIN_INPUTS = 20_000  # below, the calls themselves take longest


class OneDnnLinear(nn.Linear):
    """A linear layer, and a GELU behind it where wanted, by oneDNN on a CPU in single precision.

    PyTorch multiplies matrices in single precision with MKL, which leaves AVX-512 unused on processors that aren't
    Intel's. oneDNN uses whatever the processor has; ``torch.compile`` calls it by the operator that is used here. The
    result is the same up to rounding, in half the time on an AMD EPYC. On other devices, in other precisions, in
    training and in exported graphs it is a linear layer like any other.

    Args:
        in_features: Width of the inputs.
        out_features: Width of the outputs.
        bias: Whether to add a bias.
        with_gelu: Whether to apply GELU to the outputs, in the same pass.
        device: Device of the parameters.

    Example:
        >>> layer = nn.Linear(64, 32)
        >>> inputs = torch.rand(2, 200, 64)
        >>> with torch.no_grad():
        ...     torch.testing.assert_close(OneDnnLinear.of(layer)(inputs), layer(inputs))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        with_gelu: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device)
        self.with_gelu = with_gelu

    @classmethod
    def of(cls, layer: nn.Linear, *, with_gelu: bool = False) -> OneDnnLinear:
        """Take over a layer; its parameters are shared, not copied."""
        has_bias = layer.bias is not None
        taken = cls(layer.in_features, layer.out_features, has_bias, with_gelu=with_gelu, device="meta")
        taken.weight, taken.bias = layer.weight, layer.bias
        return taken.train(layer.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply, add the bias, and apply GELU where wanted.

        Args:
            inputs: Any number of rows (..., in_features).

        Returns:
            Rows (..., out_features).
        """
        if not _onednn_is_faster(inputs, self.weight):
            outputs = super().forward(inputs)
            return F.gelu(outputs) if self.with_gelu else outputs
        activation, algorithm = ("gelu", "none") if self.with_gelu else ("none", "")
        linear = torch.ops.mkldnn._linear_pointwise
        return linear(inputs.contiguous(), self.weight, self.bias, activation, [], algorithm)


def use_onednn(module: nn.Module) -> None:
    """Turn the linear layers inside of a module into ones that multiply with oneDNN, in place.

    Args:
        module: The module; layers of other classes derived from ``nn.Linear`` stay as they are.
    """
    for parent in list(module.modules()):
        if isinstance(parent, Mlp) and _has_gelu_behind_its_first_layer(parent):
            parent.fc1, parent.act = OneDnnLinear.of(parent.fc1, with_gelu=True), nn.Identity()  # type: ignore[arg-type]
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, OneDnnLinear.of(child))


def _has_gelu_behind_its_first_layer(mlp: Mlp) -> bool:
    """Whether an MLP is timm's own, with a linear first layer and the exact GELU right behind it."""
    return (
        type(mlp) is Mlp and type(mlp.fc1) is nn.Linear and type(mlp.act) is nn.GELU and mlp.act.approximate == "none"
    )


def _onednn_is_faster(inputs: Tensor, weight: Tensor) -> bool:
    """Whether the detour pays; gradients and graphs are better off with the plain layer."""
    if torch.compiler.is_compiling():  # before anything that would tie a graph to a size
        return False
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.numel() > MIN_INPUTS
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_grad_enabled()
    )
