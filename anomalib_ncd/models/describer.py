# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From the views of regions to the features that classes are made of."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from anomalib_ncd.data.datasets import NormalRegions
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.clustering.clustering import unit_rows
from anomalib_ncd.models.contrast import contrast
from anomalib_ncd.models.encoders.base import Frozen, RegionEncoder, in_parts
from anomalib_ncd.models.encoders.build_encoder import build_encoders
from anomalib_ncd.models.normal.image_novelty import ImageNovelty
from anomalib_ncd.models.normal.normal_comparison import fit_to_images, fit_to_regions
from anomalib_ncd.models.normal.normal_patches import SMALLEST, NormalPatches
from anomalib_ncd.settings import MIN_NORMAL_IMAGES

DescriberKind: TypeAlias = Literal["frozen_features", "plain_features", "normal_residuals"]
REGIONS_PER_PASS = 64
CONSTANT = 0.7  # in each feature, so that what is near normal lies together instead of in all directions
IMAGE_WEIGHT = 0.7  # of what sets the whole image apart, beside what sets the region apart
CONTRAST_WEIGHT = 0.5  # of how much lighter or darker than its surroundings a region is
REJECTION_CONSTANT = 1.5


class Description(NamedTuple):
    """What is said of R regions."""

    feature: Tensor  # (R, D) float, for clusters and classes
    rejection_feature: Tensor  # (R, E) float, to tell whether a region is like those of a run; never trained
    appearance: Tensor  # (R, F) float, what a region looks like on its own, to carry corrections to those like it


class Describer(nn.Module):
    """Turns views and masks of regions into features of a width that never changes."""

    feature_dim: int  # width D of the feature
    image_size: int  # side S of a view in pixels
    # Whether regions are described by the images that they lie in, too, and compared with normal images
    needs_whole_images: bool = False
    why_untrained: ClassVar[str] = ""  # why training can't change it; empty where it can

    def fit(self, regions: NormalRegions, image_paths: Sequence[Path], seed: int = 0) -> Tensor:
        """Take over normal images in place of those known before, for a describer that compares with them.

        `seed` chooses patches and images. Returns the features ``(N, D)`` of half of the regions, compared with the
        other images alone, on the CPU; none where there is but one image.
        """
        raise NotImplementedError

    def forward(
        self, views: Tensor, masks: Tensor, whole_images: Tensor | None = None, image_index: Tensor | None = None
    ) -> Description:
        """Describe regions.

        Args:
            views: Views ``(R, 3, S, S)`` uint8.
            masks: Their masks ``(R, 1, S, S)`` float in [0, 1].
            whole_images: Views ``(I, 3, S, S)`` uint8 of the images that they lie in, for a describer that needs them.
            image_index: ``(R,)`` long, which of these images each region lies in.
        """
        raise NotImplementedError


def orientations(views: Tensor, masks: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Views with their masks, and these with rows and columns exchanged, which networks take for different things."""
    return [(views, masks), (views.transpose(2, 3), masks.transpose(2, 3))]


class OneNetwork(Describer):
    """Describes by one network."""

    def __init__(self, encoder: RegionEncoder) -> None:
        super().__init__()
        self.encoder, self.image_size = encoder, encoder.image_size
        self.register_buffer("pixel_mean", torch.tensor(encoder.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("pixel_std", torch.tensor(encoder.std).view(1, 3, 1, 1) * 255)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor

    def normalised(self, views: Tensor) -> Tensor:
        """Views ``(B, 3, S, S)`` uint8 as the encoder takes them, on its device."""
        return (views.to(self.pixel_mean.device).float() - self.pixel_mean) / self.pixel_std


class FrozenFeatures(OneNetwork):
    """Features of the encoder alone, whose last part training may change."""

    width_beside: ClassVar[int] = 0  # of contrast beside the features

    def __init__(self, encoder: RegionEncoder) -> None:
        super().__init__(encoder)
        self.feature_dim = encoder.width + self.width_beside

    def frozen(self, views: Tensor, masks: Tensor) -> Frozen:
        """What the frozen part makes of views ``(R, 3, S, S)`` uint8 and masks; it can be kept between epochs."""
        return self.encoder.frozen(self.normalised(views), masks.to(self.pixel_mean.device))

    def forward(self, views: Tensor, masks: Tensor, *_: Tensor | None) -> Description:
        """Describe regions; see :meth:`Describer.forward`. Whole images are not looked at."""
        return in_parts(self._described, REGIONS_PER_PASS, views, masks)

    def _described(self, views: Tensor, masks: Tensor) -> Description:
        """Description of a bounded number of regions."""
        frozen = self.frozen(views, masks)
        reference = self.encoder.reference(frozen)
        return Description(self.encoder.trained(frozen), reference, reference)


class PlainFeatures(FrozenFeatures):
    """Features of the encoder alone, for clusters: mean directions of both orientations of a view, and its contrast."""

    why_untrained = "Nothing of `describer='plain_features'` can be trained; leave it out, or cluster instead."
    width_beside = 1

    def _described(self, views: Tensor, masks: Tensor) -> Description:
        described = super()._described
        one, turned = (described(*turn)[:2] for turn in orientations(views, masks))
        feature, reference = (unit_rows(unit_rows(a) + unit_rows(b)) for a, b in zip(one, turned, strict=True))
        contrasts = contrast(views, masks).to(feature) * CONTRAST_WEIGHT
        return Description(torch.cat([feature, contrasts], dim=1), reference, reference)


class NormalResiduals(OneNetwork):
    """What sets regions, and the images that they lie in, apart from normal images.

    The feature is the direction of the residual of :class:`NormalPatches`, of length l / (l + m) where its longest
    residual has the length l and that of normal regions the median m; the direction of :class:`ImageNovelty`, as long
    as the image is novel; the :func:`contrast`; and a constant. Rejection looks at neither image nor contrast.
    """

    needs_whole_images = True
    why_untrained = "Nothing of `describer='normal_residuals'` can be trained; leave it out, or cluster instead."

    def __init__(self, encoder: RegionEncoder) -> None:
        super().__init__(encoder)
        self.normal_patches, self.novelty = NormalPatches(encoder.patch_width), ImageNovelty(encoder.patch_width)
        self.register_buffer("usual_length", torch.ones(()))
        self.usual_length: Tensor  # median length m of normal regions, compared with other images than their own
        self.feature_dim = 2 * encoder.patch_width + 2

    @torch.no_grad()
    def fit(self, regions: NormalRegions, image_paths: Sequence[Path], seed: int = 0) -> Tensor:
        """See :meth:`Describer.fit`."""
        rows, contrasts = fit_to_regions(self.normal_patches, self._region_patches, regions, self.image_size, seed)
        bit_depth = regions.table.settings.bit_depth
        fit_to_images(self.novelty, self._whole_patches, image_paths, self.image_size, seed, bit_depth)
        usual = rows[:, 0].norm(dim=1).quantile(0.5) if len(rows) else torch.tensor(1.0)
        self.usual_length.copy_(usual.clamp(min=SMALLEST))  # copies of one image differ by nothing
        return self._joined(rows, contrasts, torch.zeros_like(rows[:, 0]))[0]  # their images count as seen

    @torch.no_grad()
    def forward(
        self, views: Tensor, masks: Tensor, whole_images: Tensor | None = None, image_index: Tensor | None = None
    ) -> Description:
        """See :meth:`Describer.forward`; ``ValueError`` without whole images, ``RuntimeError`` without normal ones."""
        if whole_images is None or image_index is None:
            msg = "Regions are described by their images, too; give these as `whole_images`, and as `image_index`."
            raise ValueError(msg)
        compared = in_parts(self._compared, REGIONS_PER_PASS, views, masks)
        novelty = self.novelty(self._whole_patches(whole_images))
        contrasts = in_parts(contrast, REGIONS_PER_PASS, views, masks)
        features = self._joined(compared[:, :2], contrasts, novelty[image_index.to(novelty.device)])
        return Description(*features, compared[:, 2])

    def _compared(self, views: Tensor, masks: Tensor) -> Tensor:
        """Residuals of a bounded number of regions, and the mean patch of each: ``(R, 3, D)``."""
        patches, shares = self._region_patches(views, masks)
        appearance = (patches * shares).sum(dim=(1, 2)) / shares.sum(dim=(1, 2))
        return torch.cat([self.normal_patches(patches, shares), appearance[:, None].float()], dim=1)

    def _region_patches(self, views: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Patches ``(B, 2, N, D)`` of views and of these with rows and columns exchanged, with their shares."""
        views, masks = self.normalised(views), masks.to(self.pixel_mean.device)
        turns = (self.encoder.region_patches(*turn) for turn in orientations(views, masks))
        patches, shares = zip(*turns, strict=True)
        return torch.stack(patches, dim=1), torch.stack(shares, dim=1)

    def _whole_patches(self, views: Tensor) -> Tensor:
        return self.encoder.whole_patches(self.normalised(views))

    def _joined(self, rows: Tensor, contrasts: Tensor, novelty: Tensor) -> tuple[Tensor, Tensor]:
        """Features of residuals ``(R, 2, D)``, contrasts ``(R, 1)`` and images ``(R, D)``; what rejection compares."""
        longest, mean = rows.unbind(dim=1)
        own = longest / (longest.norm(dim=1, keepdim=True) + self.usual_length.to(rows))
        one = torch.ones_like(own[:, :1])
        beside = [novelty.to(rows) * IMAGE_WEIGHT, contrasts.to(rows) * CONTRAST_WEIGHT, one * CONSTANT]
        return torch.cat([own, *beside], dim=1), torch.cat([mean, one * REJECTION_CONSTANT], dim=1)


class SideBySide(Describer):
    """Several networks of one kind of description, of which none drowns the others; nothing of it is trained.

    A ViT and a CNN know different things. ``ValueError`` if they take views of different sizes.
    """

    why_untrained = "Networks side by side are for clusters; give one `backbone` to train, or cluster instead."

    def __init__(self, parts: Sequence[OneNetwork]) -> None:
        super().__init__()
        sizes = [part.image_size for part in parts]
        if len(set(sizes)) > 1:
            msg = f"Networks side by side see views of one size, got {sizes} pixels; give one `image_size` for all."
            raise ValueError(msg)
        self.parts: Any = nn.ModuleList(parts)
        self.image_size = sizes[0]
        self.needs_whole_images, self.feature_dim = parts[0].needs_whole_images, sum(part.feature_dim for part in parts)

    def fit(self, regions: NormalRegions, image_paths: Sequence[Path], seed: int = 0) -> Tensor:
        """See :meth:`Describer.fit`."""
        return self.joined([part.fit(regions, image_paths, seed) for part in self.parts])

    @torch.no_grad()
    def forward(self, *inputs: Tensor | None) -> Description:
        """Describe regions; see :meth:`Describer.forward`."""
        found = [part(*inputs) for part in self.parts]
        return Description(*(self.joined(blocks) for blocks in zip(*found, strict=True)))

    def joined(self, blocks: Sequence[Tensor]) -> Tensor:
        """Features of the networks as one ``(R, D)``, each of norm 1 but residuals, whose lengths have a meaning."""
        return torch.cat([block if self.needs_whole_images else unit_rows(block) for block in blocks], dim=1)


DESCRIBERS: dict[str, type[FrozenFeatures | NormalResiduals]] = {
    "frozen_features": FrozenFeatures,
    "plain_features": PlainFeatures,
    "normal_residuals": NormalResiduals,
}


def build_describer(
    kind: DescriberKind, backbone: str, weights: str | Path | None = None, **settings: Any
) -> Describer:
    """Build a describer: to train, for plain clusters, or to compare with normal images; see :func:`build_encoders`."""
    return _of_kind(kind, build_encoders(backbone, weights, **settings))


def describer_for(num_normal: int) -> DescriberKind:
    """What clusters are best made of where so many normal images are known: too few are as good as none."""
    return "normal_residuals" if num_normal >= MIN_NORMAL_IMAGES else "plain_features"


def with_networks_of(describer: Describer, kind: DescriberKind) -> Describer:
    """A describer of a kind, which knows no normal images yet, with the networks of another one, where they lie."""
    encoders = [part.encoder for part in describer.modules() if isinstance(part, OneNetwork)]
    return _of_kind(kind, encoders).to(next(encoders[0].parameters()).device)


def _of_kind(kind: DescriberKind, encoders: Iterable[RegionEncoder]) -> Describer:
    if kind not in DESCRIBERS:
        msg = f"`describer` must be one of {tuple(DESCRIBERS)}, got {kind!r}."
        raise ValueError(msg)
    parts = [DESCRIBERS[kind](encoder) for encoder in encoders]
    return parts[0] if len(parts) == 1 else SideBySide(parts)


def refuse_training(trained: ClassSlots | None, describer: Describer, base_names: Sequence[str]) -> None:
    """Raise ``ValueError`` for training that can't go on from what was ``trained`` before, if anything was."""
    if trained is not None and trained.from_clusters:
        msg = "The model was made from clusters, which training can't go on from; start with a new AnomalyNcd."
        raise ValueError(msg)
    if describer.why_untrained:
        raise ValueError(describer.why_untrained)
    if trained is not None and list(trained.base_names or ()) != list(base_names):
        found = f"The model was trained with the base classes {list(trained.base_names or ())}"
        msg = f"{found}, but the datamodule has {base_names}. Start with a new model, or give the same `base`."
        raise ValueError(msg)
