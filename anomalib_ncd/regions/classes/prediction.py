# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From the class probabilities of an image's regions to what is said of the image: the one way for all predictions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anomalib_ncd.regions.classes.results import ImageResult, RegionResult

LOGIT_TEMPERATURE = 0.1  # of the paper: what cosines to prototypes are divided by

UNKNOWN_SHARE = 0.5
CLASS_SEPARATOR = ";"  # of the column `classes`; no name may hold it
MIN_RELATIVE_SCORE = 0.7
MIN_CONFIDENCE = 0.4


def first_slots(class_names: Sequence[str]) -> list[int]:
    """Give each slot the first slot of its name."""
    first: dict[str, int] = {}
    return [first.setdefault(name, slot) for slot, name in enumerate(class_names)]


def named_probabilities(probabilities: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Add up probabilities ``(N, K)`` of slots that share a name: at the first slot of it, 0 at its others; float32."""
    probabilities = np.asarray(probabilities, dtype=np.float32)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        msg = f"`class_names` must name the K slots of (N, K), got {len(class_names)} for {probabilities.shape}."
        raise ValueError(msg)
    by_name = probabilities.copy()
    for slot, target in enumerate(first_slots(class_names)):
        if slot != target:
            by_name[:, target] += probabilities[:, slot]
            by_name[:, slot] = 0
    return by_name


def choose_classes(probabilities: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Choose the most probable class out of ``(N, K)``; slots of one name stand together.

    Returns the slots ``(N,)`` int64, the most probable one of the most probable name each, and the probability ``(N,)``
    float32 of that name.
    """
    by_name = named_probabilities(probabilities, class_names)
    of_name = np.array(first_slots(class_names))[None] == by_name.argmax(axis=1)[:, None]
    return np.where(of_name, probabilities, -1).argmax(axis=1), by_name.max(axis=1)


def novel_probabilities(logits: np.ndarray, num_base_classes: int) -> np.ndarray:
    """Probabilities of the novel classes, given that the class is one: of logits ``(..., C)``, base classes first.

    The softmax without its base columns, renormalised, is the softmax over the novel logits alone. Returns
    ``(..., C - num_base_classes)`` float32.
    """
    logits = np.asarray(logits, dtype=np.float32)
    if not 0 <= num_base_classes < (logits.shape[-1] if logits.ndim else 0):
        msg = (
            f"`num_base_classes` must be from 0 to C - 1 for `logits` of shape (..., C), got {num_base_classes} and "
            f"{logits.shape}; a head has an output for each base and each novel class."
        )
        raise ValueError(msg)
    scaled = logits[..., num_base_classes:] / np.float32(LOGIT_TEMPERATURE)
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def region_weights(areas: np.ndarray, temperature: float) -> np.ndarray:
    """Weight of each region of an image, ``(R,)`` float32: softmax of the root of its area over the temperature.

    The temperature is a side length in pixels: the higher, the less area matters; 100 in the paper for MVTec AD, 50 for
    MTD. ``ValueError`` if an area is negative or the temperature is not positive.
    """
    areas = np.asarray(areas, dtype=np.float32)
    if areas.ndim != 1 or (areas < 0).any():
        msg = f"`areas` must have shape (R,) and not be negative, got {areas}; count the pixels of each region's mask."
        raise ValueError(msg)
    if not temperature > 0:
        msg = f"`temperature` must be positive, got {temperature}; 50 to 100 are the paper's."
        raise ValueError(msg)
    scaled = np.sqrt(areas) / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(initial=0))
    return exponentials / exponentials.sum()


def merge_image(probabilities: np.ndarray, areas: np.ndarray, temperature: float) -> np.ndarray:
    """Merge ``(R, ...)`` of the regions of one image: their mean by :func:`region_weights`, float32; 0 if none."""
    probabilities = np.asarray(probabilities, dtype=np.float32)
    if not probabilities.ndim or len(probabilities) != len(areas):
        msg = f"`probabilities` must have shape (R, ...) for {len(areas)} areas, got {probabilities.shape}."
        raise ValueError(msg)
    return np.tensordot(region_weights(areas, temperature), probabilities, axes=1)


def merging_temperature_of(size_hw: tuple[int, int]) -> float:
    """Temperature of region merging that grows with the image: an eighth of the root of its area.

    The paper sets it by data set: 100 for MVTec AD, whose sides are around 900 pixels, and 50 for MTD, around 300. An
    eighth lies between the two.
    """
    return math.sqrt(size_hw[0] * size_hw[1]) / 8


def counting_regions(
    scores: np.ndarray,
    areas: np.ndarray,
    confidences: np.ndarray,
    min_relative_score: float = MIN_RELATIVE_SCORE,
    min_confidence: float = MIN_CONFIDENCE,
) -> np.ndarray:
    """Tell which regions of an image, ``(R,)`` bool, are sure enough to give it a class of their own.

    A region counts if it has a mask, its anomaly score in [0, 1] is at least `min_relative_score` of the highest one in
    its image, and its class at least `min_confidence` probable. Without the first two, every weak false alarm beside a
    defect would make two kinds of one. The defaults were chosen on generated images, see docs/guides/trust.md.
    """
    if not scores.shape == areas.shape == confidences.shape:
        shapes = [tuple(each.shape) for each in (scores, areas, confidences)]
        msg = f"`scores`, `areas` and `confidences` must have one shape (R,), got {shapes}."
        raise ValueError(msg)
    return (areas > 0) & (confidences >= min_confidence) & (scores >= min_relative_score * scores.max(initial=0))


def classes_of_image(
    image_class: int, region_classes: Sequence[int], class_names: Sequence[str], normal_slot: int | None
) -> list[int]:
    """List the classes of an image, each once: that of the merged regions first, then those of regions that count.

    Slots of one name are one class, which goes by its first slot. *Normal* is listed only as the class of the image.
    """
    first = first_slots(class_names)
    normal = None if normal_slot is None else first[normal_slot]
    others = [first[slot] for slot in region_classes if first[slot] != normal]
    return list(dict.fromkeys([first[image_class], *others]))


@dataclass(frozen=True)
class RegionMerging:
    """What classes mean, and how regions decide about their image."""

    class_names: tuple[str, ...]  # name of each of the K slots; slots of one name are one class
    normal_slot: int | None = None  # slot of *normal*, whatever its name; None where there is none
    temperature: float | None = None  # T of region merging; None for an eighth of the root of the image's area

    def predict(
        self,
        probabilities: np.ndarray,
        boxes_xyxy: np.ndarray,
        areas: np.ndarray,
        scores: np.ndarray,
        size_hw: tuple[int, int],
        is_unknown: np.ndarray | None = None,
        image: str | None = None,
        said: int = -1,
    ) -> ImageResult:
        """Predict an image from its regions, of which there may be none.

        Regions have class probabilities ``(R, K)`` float, boxes ``(R, 4)`` in image pixels, areas ``(R,)`` of mask
        pixels, 0 where the image's map has no main element, and anomaly scores ``(R,)`` float in [0, 1]; ``is_unknown``
        ``(R,)`` bool says which are unlike all of the run (``None``: none is). ``size_hw`` and ``image`` are height,
        width and path of the image; ``said`` is the slot that its user says the image is of, if any.
        """
        probabilities, scores = np.asarray(probabilities, np.float32), np.asarray(scores, np.float32)
        areas = np.asarray(areas, np.int64)
        unknown = np.zeros(len(areas), bool) if is_unknown is None else np.asarray(is_unknown, bool)
        temperature = self.temperature or merging_temperature_of(size_hw)
        merged = merge_image(probabilities, areas, temperature)
        given = self.normal_slot if said < 0 and not len(areas) else said  # what needs no probabilities
        if given is not None and given >= 0:
            merged = np.eye(len(self.class_names), dtype=np.float32)[given]
        if not merged.any():
            return ImageResult(image, size_hw, is_normal=True, probabilities=tuple(merged.tolist()))
        image_is_unknown = bool(said < 0 and unknown.any() and merge_image(unknown, areas, temperature) > UNKNOWN_SHARE)
        (slot, *slots), (confidence, *confidences) = (  # the first row is the image
            part.tolist() for part in choose_classes(np.vstack([merged, probabilities]), self.class_names)
        )
        is_counting = counting_regions(scores, areas, np.array(confidences))
        counting = [one for one, counts in zip(slots, is_counting, strict=True) if counts]
        classes = classes_of_image(slot, counting, self.class_names, self.normal_slot)
        columns = (boxes_xyxy, areas, scores, slots, confidences, unknown, probabilities)
        rows = zip(*(np.asarray(part).tolist() for part in columns), strict=True)
        return ImageResult(
            image=image,
            size_hw=size_hw,
            class_id=slot,
            class_name=self.class_names[slot],
            confidence=confidence,
            is_normal=(said < 0 and not areas.any()) or (self.is_normal(slot) and not image_is_unknown),
            is_unknown=image_is_unknown,
            classes=tuple(self.class_names[one] for one in classes),
            score=float(scores.max(initial=0)),
            probabilities=tuple(merged.tolist()),
            regions=tuple(
                RegionResult(tuple(box), area, score, one, self.class_names[one], certainty, unlike, tuple(own))
                for box, area, score, one, certainty, unlike, own in rows
            ),
        )

    def is_normal(self, slot: int) -> bool:
        """Whether a slot is that of *normal*, or shares its name."""
        return self.normal_slot is not None and self.class_names[slot] == self.class_names[self.normal_slot]
