# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Items and batches that pass between data and model, and how a model wants them.

anomalib's ``ImageBatch`` casts labels to bool and knows no regions. Lightning moves these dataclasses between devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from typing_extensions import Self

from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.settings import RegionSettings


@dataclass(frozen=True)
class ModelInputs:
    """How a model takes regions; it says so to a datamodule before that makes any."""

    image_size: int  # side of a view in pixels
    whole_images: bool = False  # whether views of whole images are needed, too
    score_range: tuple[float, float] | None = None  # of a fitted model; None, as below, for a new one
    regions: RegionSettings | None = None  # how they were cut
    map_kind: str | None = None  # what the maps of its run hold


@dataclass
class _Batch:
    """Tensors that data loaders hand over."""

    def pin_memory(self) -> Self:
        """The batch in pinned memory, from which a GPU takes it faster; data loaders call this."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        pinned = {name: value.pin_memory() for name, value in values.items() if isinstance(value, torch.Tensor)}
        return replace(self, **pinned)


@dataclass
class RegionViewBatch(_Batch):
    """V augmented views of B regions for training: images and masks, or tokens that were computed before.

    The label is the base class, or the first novel one for regions known to be normal; 0 for novel regions, whose class
    nobody knows.
    """

    region_index: torch.Tensor  # (B,) long, index of the region in the training set
    label: torch.Tensor  # (B,) long
    is_base: torch.Tensor  # (B,) bool, which regions are labelled
    score: torch.Tensor  # (B,) float in [0, 1]
    image: torch.Tensor | None = None  # (V, B, 3, S, S) uint8
    mask: torch.Tensor | None = None  # (V, B, 1, S, S) float in [0, 1]
    tokens: torch.Tensor | None = None  # (V, B, N, D), outputs of the frozen blocks
    attended: torch.Tensor | None = None  # (V, B, N) bool, what the class token may look at

    @property
    def batch_size(self) -> int:
        """Number of regions."""
        return len(self.region_index)

    @classmethod
    def collate(cls, items: Sequence[RegionViewBatch]) -> RegionViewBatch:
        """Join items of one region each."""

        def join(name: str, dim: int) -> torch.Tensor | None:
            values = [getattr(item, name) for item in items]
            return None if values[0] is None else torch.cat(values, dim=dim)

        per_region = {name: join(name, 0) for name in ("region_index", "label", "is_base", "score")}
        per_view = {name: join(name, 1) for name in ("image", "mask", "tokens", "attended")}
        return cls(**per_region, **per_view)  # type: ignore[arg-type]


@dataclass
class NcdBatch(_Batch):
    """B images with their R regions, and the classes that the model predicts for both, of which there are K.

    ``region_*`` fields have one row per region, the others one per image. Views are dropped from predictions; ground
    truth and predictions are ``None`` where there are none. Slot 0 of the K classes is normal.
    """

    image_path: list[str]
    image_size: torch.Tensor  # (B, 2) long, height and width in pixels
    image: torch.Tensor | None  # (R, 3, S, S) uint8, the regions' views
    region_mask: torch.Tensor | None  # (R, 1, S, S) float in [0, 1]
    region_image_index: torch.Tensor  # (R,) long, the image in this batch that a region belongs to
    region_box_xyxy: torch.Tensor  # (R, 4) float, box in image pixels, half-open
    region_score: torch.Tensor  # (R,) float in [0, 1]
    region_area: torch.Tensor  # (R,) long, mask pixels
    whole_image: torch.Tensor | None = None  # (B, 3, S, S) uint8, for models that compare with normal images
    class_id: torch.Tensor | None = None  # (B,) long, true class for evaluation, -1 where unknown
    said_class_id: torch.Tensor | None = None  # (B,) long, slot that the user says an image is of, -1 where not said
    class_sets: torch.Tensor | None = None  # (B, L) bool, true classes of the defects of an image, *good* apart
    region_class_id: torch.Tensor | None = None  # (R,) long, of the region's image, or of the defect it lies on
    class_probabilities: torch.Tensor | None = None  # (B, K) float
    pred_class_id: torch.Tensor | None = None  # (B,) long, most probable class; -1 where there is none
    pred_class_score: torch.Tensor | None = None  # (B,) float, its probability
    region_class_probabilities: torch.Tensor | None = None  # (R, K) float
    region_pred_class_id: torch.Tensor | None = None  # (R,) long
    region_pred_class_score: torch.Tensor | None = None  # (R,) float
    region_feature: torch.Tensor | None = None  # (R, D) float32, the mask-guided feature
    region_reference: torch.Tensor | None = None  # (R, E) float32, of the frozen part of the encoder, to compare runs
    region_appearance: torch.Tensor | None = None  # (R, F) float32, what it looks like on its own
    region_head_class_id: torch.Tensor | None = None  # (R, H) long, the class that each head gives
    unknown: torch.Tensor | None = None  # (B,) bool, whether the regions that decide the class are unknown
    region_unknown: torch.Tensor | None = None  # (R,) bool, whether it is unlike all regions of discovery

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return len(self.image_path)

    def __len__(self) -> int:
        return self.batch_size

    def update(self, **values: Any) -> NcdBatch:
        """Set fields in place, as anomalib's batches do; ``AttributeError`` for what is no field."""
        known = {field.name for field in fields(self)}
        for name, value in values.items():
            if name not in known:
                msg = f"NcdBatch has no field {name!r}; its fields are {sorted(known)}."
                raise AttributeError(msg)
            setattr(self, name, value)
        return self

    def image_results(self, merging: RegionMerging) -> list[ImageResult]:
        """Predict each image from the class probabilities of its regions, of which there may be none.

        ``merging`` says what classes mean, such as :attr:`AnomalyNcd.region_merging`; other names give other classes.
        ``ValueError`` if the batch has no predictions.
        """
        if self.region_class_probabilities is None:
            msg = "The batch holds no predictions; pass what Engine.predict returns."
            raise ValueError(msg)
        unknown = torch.zeros_like(self.region_area) if self.region_unknown is None else self.region_unknown
        columns = (self.region_class_probabilities, self.region_box_xyxy, self.region_area, self.region_score, unknown)
        of_regions = [part.detach().cpu().numpy() for part in columns]
        image_index = self.region_image_index.cpu().numpy()
        order = image_index.argsort(kind="stable")
        ends = np.searchsorted(image_index[order], np.arange(1, len(self) + 1))  # behind the last one there is nothing
        of_images = zip(*(np.split(part[order], ends)[:-1] for part in of_regions), strict=True)
        said = torch.full((len(self),), -1) if self.said_class_id is None else self.said_class_id
        images = zip(self.image_path, self.image_size.tolist(), of_images, said.tolist(), strict=True)
        return [
            merging.predict(probabilities, boxes, areas, scores, (height, width), flags, path, slot)
            for path, (height, width), (probabilities, boxes, areas, scores, flags), slot in images
        ]

    def with_predictions(
        self, probabilities: torch.Tensor, merging: RegionMerging, region_unknown: torch.Tensor | None = None
    ) -> NcdBatch:
        """Set classes and confidences in place from class probabilities ``(R, K)`` of regions.

        ``region_unknown`` ``(R,)`` bool says which regions are unlike all of the run; ``None``: as before.
        ``pred_class_id`` becomes -1 for an image without region where no slot is *normal*.
        """
        device = self.region_area.device
        self.region_class_probabilities = probabilities.to(device)
        if region_unknown is not None:
            self.region_unknown = region_unknown.to(device)
        return self.with_results(self.image_results(merging))

    def with_results(self, results: Sequence[ImageResult]) -> NcdBatch:
        """Set classes and confidences in place as results of all images say, in the order of the batch."""
        device = self.region_area.device
        regions = [region for result in results for region in result.regions]
        place = self.region_image_index.cpu().argsort(stable=True).argsort()  # of each region among these
        class_ids = torch.tensor([region.class_id for region in regions], dtype=torch.long)
        confidences = torch.tensor([region.confidence for region in regions], dtype=torch.float32)
        predictions = {
            "region_pred_class_id": class_ids[place],
            "region_pred_class_score": confidences[place],
            "class_probabilities": torch.tensor([result.probabilities for result in results], dtype=torch.float32),
            "pred_class_id": torch.tensor([-1 if one.class_id is None else one.class_id for one in results]),
            "pred_class_score": torch.tensor([result.confidence for result in results], dtype=torch.float32),
            "unknown": torch.tensor([result.is_unknown for result in results]),
        }
        return self.update(**{name: values.to(device) for name, values in predictions.items()})

    def without_pixels(self) -> NcdBatch:
        """The batch without view pixels, small enough to keep for every image."""
        return replace(self, image=None, region_mask=None, whole_image=None)

    @classmethod
    def collate(cls, items: Sequence[NcdBatch]) -> NcdBatch:
        """Join batches of one image or more each; a field that one of them lacks is lacking."""

        def join(name: str) -> torch.Tensor | None:
            values = [getattr(item, name) for item in items]
            return None if any(value is None for value in values) else torch.cat(values)

        joined = {field.name: join(field.name) for field in fields(cls) if field.name != "image_path"}
        first, image_index = 0, []
        for item in items:
            image_index.append(item.region_image_index + first)
            first += len(item)
        joined["region_image_index"] = torch.cat(image_index)
        return cls(image_path=[path for item in items for path in item.image_path], **joined)  # type: ignore[arg-type]
