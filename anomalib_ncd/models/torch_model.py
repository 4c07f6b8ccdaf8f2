# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The network of AnomalyNCD (Huang et al., CVPR 2025): describer, prototype heads and projector, and what they mean."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anomalib_ncd.data.batches import NcdBatch, RegionViewBatch
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.clustering.clustering import unit_rows
from anomalib_ncd.models.describer import Describer, Description, FrozenFeatures
from anomalib_ncd.models.encoded_regions import given
from anomalib_ncd.models.encoders.base import Frozen
from anomalib_ncd.models.rejection import RegionRejection
from anomalib_ncd.regions.classes.prediction import RegionMerging, novel_probabilities


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


class ModelOutput(NamedTuple):
    """Features (B, D), projections (B, P) of any norm (``None`` without projector), cosines (heads, B, classes)."""

    features: Tensor
    projections: Tensor | None
    logits: Tensor


class AnomalyNcdModel(nn.Module):
    """Describer, heads that classify regions into base and novel classes, and the regions of a run: what predicts.

    The describer turns views and masks into features; ``slots`` are what the outputs of the heads stand for. The paper
    has 4 heads, and a projector with hidden layers of 2048 and 256 outputs, which only the contrastive losses read.
    ``merging_temperature`` is T of region merging, ``None`` for an eighth of the root of the image's area; for
    ``false_reject_rate`` see :class:`RegionRejection`.
    """

    def __init__(
        self,
        describer: Describer,
        slots: ClassSlots,
        num_heads: int = 4,
        projection_hidden_dim: int = 2048,
        projection_dim: int = 256,
        with_projector: bool = True,
        merging_temperature: float | None = None,
        false_reject_rate: float | None = 0.02,
    ) -> None:
        super().__init__()
        self.describer = describer
        self.num_heads, self.merging_temperature = num_heads, merging_temperature
        self._projector_dims = (projection_hidden_dim, projection_dim) if with_projector else None
        self.projector: ProjectionHead | None = None
        self.register_buffer("best_head", torch.tensor(0))
        self.best_head: Tensor  # which predicts
        self.make_heads(slots)
        self.rejection = RegionRejection(false_reject_rate)  # what is known of the run's regions

    def make_heads(self, slots: ClassSlots) -> None:
        """Make fresh heads, and a projector if there is one, for classes, of which there may be no base ones."""
        self.slots, width, device = slots, self.describer.feature_dim, self.best_head.device
        self.heads = PrototypeHeads(width, slots.num_outputs, self.num_heads).to(device)
        if self._projector_dims is not None:
            self.projector = ProjectionHead(width, *self._projector_dims).to(device)

    def set_prototypes(self, prototypes: Tensor, *, has_normal: bool) -> None:
        """Put centres of clusters ``(K, D)``, the first perhaps of *normal*, in the place of all learnt classes."""
        self.make_heads(ClassSlots((), len(prototypes), has_normal=has_normal, from_clusters=True))
        self.heads.weight.data.copy_(prototypes.expand_as(self.heads.weight))
        self.best_head.zero_()

    def add_classes(self, prototypes: Tensor) -> None:
        """Put new classes, with prototypes ``(H, M, D)``, behind the network's own, which stay where they are."""
        novel = self.heads.weight.detach()[:, self.slots.num_base :]
        self.replace_classes(torch.cat([novel, prototypes.to(novel)], dim=1), self.slots.extended(prototypes.shape[1]))

    def replace_classes(self, prototypes: Tensor, slots: ClassSlots) -> None:
        """Put other novel classes in the place of the network's own; base classes stay.

        `prototypes` are ``(H, K, D)`` float, or ``(1, K, D)`` for all heads alike; `slots` what they stand for.
        """
        projector, base = self.projector, self.heads.weight.detach()[:, : self.slots.num_base]
        self.make_heads(slots)
        novel = prototypes.to(base).expand(len(base), -1, -1)
        self.heads.weight.data.copy_(torch.cat([base, novel], dim=1))
        self.projector = projector

    @property
    def prototypes(self) -> Tensor:
        """Prototypes ``(K, D)`` of the novel classes in the best head; ``ValueError`` if there are none yet."""
        if self.slots.base_names is None:
            msg = "The model was never trained, so it has no classes; fit it or give `ckpt_path` a checkpoint."
            raise ValueError(msg)
        return self.heads.weight[int(self.best_head)][self.slots.num_base :]

    @property
    def region_merging(self) -> RegionMerging:
        """What the classes mean, and how regions decide about their image."""
        return RegionMerging(tuple(self.slots.names), 0 if self.slots.has_normal else None, self.merging_temperature)

    def forward(self, frozen: Frozen) -> ModelOutput:
        """Run the trained part on what :meth:`FrozenFeatures.frozen` gave, fresh or kept."""
        features = self.trained_describer.encoder.trained(frozen)
        projections = None if self.projector is None else self.projector(features)
        return ModelOutput(features, projections, self.heads(features))

    def frozen(self, views: Tensor, masks: Tensor) -> Frozen:
        """What training never changes of views ``(B, 3, S, S)`` uint8 and masks; ``TypeError`` if there is none."""
        return self.trained_describer.frozen(views, masks)

    def frozen_views(self, batch: RegionViewBatch) -> Frozen:
        """:meth:`frozen` of all views of a batch, view by view, ``V * B`` rows; kept or computed now."""
        if batch.tokens is not None and batch.attended is not None:
            return Frozen(batch.tokens.flatten(0, 1).float(), batch.attended.flatten(0, 1))
        if batch.image is None or batch.mask is None:
            msg = "A training batch needs images and masks, or cached tokens."
            raise ValueError(msg)
        return self.frozen(batch.image.flatten(0, 1), batch.mask.flatten(0, 1))

    def describe(self, batch: NcdBatch) -> Description:
        """Describe the regions of a batch, a bounded number at a time; ``ValueError`` if it has no views."""
        if batch.image is None or batch.region_mask is None:
            msg = "The batch holds no views; it seems to have been predicted before. Load the images again."
            raise ValueError(msg)
        return self.describer(batch.image, batch.region_mask, batch.whole_image, batch.region_image_index)

    def classify(self, batch: NcdBatch) -> NcdBatch:
        """Fill in classes, probabilities and confidences of images and regions (region merging), and features."""
        feature, reference, appearance = self.describe(batch)
        logits = self.heads(feature)
        of_heads = logits[..., self.slots.num_base :].argmax(dim=-1).T
        batch.update(region_feature=feature.float(), region_reference=reference, region_appearance=appearance)
        batch.update(region_head_class_id=of_heads)
        return self._classified(batch, logits[self.best_head])

    @torch.no_grad()
    def classify_encoded(self, batch: NcdBatch) -> NcdBatch:
        """Predict images of ``encode_images`` from the features of their regions, as :meth:`classify` does."""
        features = given(batch.region_feature, "The batch holds no features of its regions")
        return self._classified(batch, self.heads(features.to(self.heads.weight.device))[self.best_head])

    @property
    def trained_describer(self) -> FrozenFeatures:
        """The describer, which training changes; ``TypeError`` for another one."""
        if not isinstance(self.describer, FrozenFeatures) or self.describer.why_untrained:
            msg = f"Only FrozenFeatures can be trained, got {type(self.describer).__name__}."
            raise TypeError(msg)
        return self.describer

    def _classified(self, batch: NcdBatch, logits: Tensor) -> NcdBatch:
        """Fill in the predictions of a batch from the logits of its regions, ``(R, base + novel classes)``."""
        probabilities = novel_probabilities(logits.detach().float().cpu().numpy(), self.slots.num_base)
        references = batch.region_reference
        unknown = None if references is None else self.rejection.is_unknown(references)
        return batch.with_predictions(torch.from_numpy(probabilities), self.region_merging, unknown)
