# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The network of AnomalyNCD (Huang et al., CVPR 2025): encoder, prototype heads and projector."""

from typing import NamedTuple

from torch import Tensor, nn

from anomalib_ncd.models.encoders.build_encoder import Encoder
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
    """Mask-guided encoder with heads that classify regions into base and novel classes.

    Args:
        encoder: The mask-guided encoder, of a Vision Transformer or a convolutional network.
        num_classes: Number of base and novel classes together.
        num_heads: Number of prototype heads. Default: 4, of the paper.
        projection_hidden_dim: Width of the projector's hidden layers. Default: 2048, of the paper.
        projection_dim: Width of the projections. Default: 256, of the paper.
        with_projector: Whether there is a projector, which only the contrastive losses read.

    Example:
        >>> import torch
        >>> from anomalib_ncd.models.encoders.build_encoder import build_encoder
        >>> built = build_encoder("vit_tiny_patch16_224", pretrained=False, image_size=32)
        >>> model = AnomalyNcdModel(built.encoder, num_classes=5, num_heads=2)
        >>> model(torch.rand(3, 3, 32, 32), torch.ones(3, 1, 32, 32)).shape
        torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        num_heads: int = 4,
        projection_hidden_dim: int = 2048,
        projection_dim: int = 256,
        with_projector: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = PrototypeHeads(encoder.feature_dim, num_classes, num_heads)
        self.projector: ProjectionHead | None = None
        if with_projector:
            self.projector = ProjectionHead(encoder.feature_dim, projection_hidden_dim, projection_dim)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Classify regions; the projector is left out.

        Args:
            images: Normalised images (B, 3, H, W).
            masks: Masks (B, 1, H, W) in [0, 1] of the same size.

        Returns:
            Logits (num_heads, B, num_classes): cosine similarities in [-1, 1].
        """
        return self.heads(self.encoder(images, masks))

    def outputs_of(self, tokens: Tensor, attended: Tensor) -> ModelOutput:
        """Run the trained part on what the frozen part gave, fresh or kept.

        Args:
            tokens: Tokens (B, N, D) of ``encoder.trunk``.
            attended: Boolean (B, N) of ``encoder.trunk``.

        Returns:
            Features, projections and logits.
        """
        features = self.encoder.head(tokens, attended)
        projections = None if self.projector is None else self.projector(features)
        return ModelOutput(features, projections, self.heads(features))

    def describe(self, tokens: Tensor, attended: Tensor, num_base: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the trained part for a prediction, and gather what is kept of each region beside its class.

        Args:
            tokens: Tokens (B, N, D) of ``encoder.trunk``.
            attended: Boolean (B, N) of ``encoder.trunk``.
            num_base: Number of base classes, the first columns of the logits.

        Returns:
            Logits (num_heads, B, num_classes), and under the names of the fields of ``NcdBatch`` the features (B, D),
            the references (B, E) of the frozen part, and the novel class (B, num_heads) that each head gives.
        """
        features = self.encoder.head(tokens, attended)
        logits = self.heads(features)
        described = {
            "region_feature": features.float(),
            "region_reference": self.encoder.reference(tokens, attended),
            "region_head_class_id": logits[..., num_base:].argmax(dim=-1).T,
        }
        return logits, described
