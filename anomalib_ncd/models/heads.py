# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Heads on the region feature: the projector of the contrastive losses and the prototypes of the classes."""

import math

import torch
from torch import Tensor, nn

from anomalib_ncd.models.clustering.clustering import unit_rows


class ProjectionHead(nn.Module):
    """MLP of three linear layers with GELU, whose output only the contrastive losses read; widths are the paper's."""

    def __init__(self, in_dim: int, hidden_dim: int = 2048, out_dim: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, out_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Projections (B, out_dim), not normalised, of features (B, in_dim)."""
        return self.mlp(features)


class PrototypeHeads(nn.Module):
    """Several independent classifiers by cosine similarity to one learnt prototype per class; 4 in the paper.

    Each head is a linear layer without bias whose weight rows, and whose input, have norm 1. The heads differ only in
    their random start; training tells which one to keep.
    """

    def __init__(self, in_dim: int, num_classes: int, num_heads: int = 4) -> None:
        super().__init__()
        for name, value in (("in_dim", in_dim), ("num_classes", num_classes), ("num_heads", num_heads)):
            if value < 1:
                msg = f"`{name}` must be at least 1, got {value}."
                raise ValueError(msg)
        self.weight = nn.Parameter(torch.empty(num_heads, num_classes, in_dim))
        for head_weight in self.weight.data:  # one by one: the fan-in of a stack would be another
            nn.init.kaiming_uniform_(head_weight, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """Cosine similarities (num_heads, B, num_classes) in [-1, 1] of features (B, in_dim), of any norm."""
        return torch.einsum("bd,hcd->hbc", unit_rows(features), unit_rows(self.weight))
