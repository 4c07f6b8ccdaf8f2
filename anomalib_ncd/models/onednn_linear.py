# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Linear layers that multiply with oneDNN on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_INPUTS = 20_000  # below, the calls themselves take longest


class OneDnnLinear(nn.Linear):
    """A linear layer that is computed as a convolution of size 1 on a CPU in single precision.

    PyTorch multiplies matrices in single precision with MKL, which leaves AVX-512 unused on processors that aren't
    Intel's; oneDNN uses whatever the processor has, but is offered for convolutions alone. The result is the same up to
    rounding, in half the time on an AMD EPYC.
    On other devices, in other precisions, in training and in exported graphs it is a linear layer like any other.

    Example:
        >>> layer = nn.Linear(64, 32)
        >>> inputs = torch.rand(2, 200, 64)
        >>> with torch.no_grad():
        ...     torch.testing.assert_close(OneDnnLinear.of(layer)(inputs), layer(inputs))
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> OneDnnLinear:
        """Take over a layer; its parameters are shared, not copied."""
        taken = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        taken.weight, taken.bias = layer.weight, layer.bias
        return taken.train(layer.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply and add the bias.

        Args:
            inputs: Any number of rows (..., in_features).

        Returns:
            Rows (..., out_features).
        """
        if not _convolution_is_faster(inputs, self.weight):
            return super().forward(inputs)
        # (rows, in) is laid out as an image of one column with its channels last: (1, in, rows, 1), without a copy.
        image = inputs.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        # By name: conv2d itself takes oneDNN for this only where there are several threads.
        outputs = torch.mkldnn_convolution(
            image,
            self.weight[:, :, None, None],
            self.bias,
            padding=(0, 0),
            stride=(1, 1),
            dilation=(1, 1),
            groups=1,
        )
        return outputs.permute(0, 2, 3, 1).reshape(*inputs.shape[:-1], self.out_features)


def use_onednn(module: nn.Module) -> None:
    """Turn the linear layers inside of a module into ones that multiply with oneDNN, in place.

    Args:
        module: The module; layers of other classes derived from ``nn.Linear`` stay as they are.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, OneDnnLinear.of(child))


def _convolution_is_faster(inputs: Tensor, weight: Tensor) -> bool:
    """Whether the detour pays; gradients and graphs are better off with the plain layer."""
    if torch.compiler.is_compiling():  # before anything that would tie a graph to a size
        return False
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.numel() > MIN_INPUTS
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_grad_enabled()
    )
