# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The network of AnomalyNCD (Huang et al., CVPR 2025): describer, prototype heads and projector."""

from typing import NamedTuple

from torch import Tensor, nn

from anomalib_ncd.models.describer import FrozenFeatures, NormalResiduals
from anomalib_ncd.models.encoders.base import Frozen
from anomalib_ncd.models.heads import ProjectionHead, PrototypeHeads


class ModelOutput(NamedTuple):
    """What training reads from the network.

    Attributes:
        features: Region features (B, D).
        projections: Projections (B, P), not normalised; ``None`` without a projector.
        logits: Cosine similarities (num_heads, B, num_classes).
    """

    features: Tensor
    projections: Tensor | None
    logits: Tensor


class AnomalyNcdModel(nn.Module):
    """Describer with heads that classify regions into base and novel classes.

    Args:
        describer: Turns views and masks into features.
        num_classes: Number of base and novel classes together.
        num_heads: Number of prototype heads. Default: 4, of the paper.
        projection_hidden_dim: Width of the projector's hidden layers. Default: 2048, of the paper.
        projection_dim: Width of the projections. Default: 256, of the paper.
        with_projector: Whether there is a projector, which only the contrastive losses read.

    Example:
        >>> import torch
        >>> from anomalib_ncd.models.encoders.build_encoder import build_encoder
        >>> describer = FrozenFeatures(*build_encoder("vit_tiny_patch16_224", pretrained=False, image_size=32))
        >>> model = AnomalyNcdModel(describer, num_classes=5, num_heads=2)
        >>> frozen = describer.frozen(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.ones(3, 1, 32, 32))
        >>> model(frozen).logits.shape
        torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        describer: FrozenFeatures | NormalResiduals,
        num_classes: int,
        num_heads: int = 4,
        projection_hidden_dim: int = 2048,
        projection_dim: int = 256,
        with_projector: bool = True,
    ) -> None:
        super().__init__()
        self.describer = describer
        self.heads = PrototypeHeads(describer.feature_dim, num_classes, num_heads)
        self.projector: ProjectionHead | None = None
        if with_projector:
            self.projector = ProjectionHead(describer.feature_dim, projection_hidden_dim, projection_dim)

    def forward(self, frozen: Frozen) -> ModelOutput:
        """Run the trained part on what the frozen part gave, fresh or kept.

        Args:
            frozen: Of :meth:`FrozenFeatures.frozen`.

        Returns:
            Features, projections and logits.
        """
        features = self.describer.encoder.trained(frozen)
        projections = None if self.projector is None else self.projector(features)
        return ModelOutput(features, projections, self.heads(features))
