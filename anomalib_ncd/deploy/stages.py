# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The steps between detector and encoder, and after it: regions out of a map, a class out of regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anomalib_ncd.deploy.detectors import Detection
from anomalib_ncd.deploy.encoders import RegionPredictions
from anomalib_ncd.deploy.image_files import ImageInput
from anomalib_ncd.deploy.packing.manifest import NORMAL_NAME, Manifest
from anomalib_ncd.deploy.results import ImageResult, NormalReason, RegionResult
from anomalib_ncd.regions.classes.image_classes import classes_of_images, counting_regions
from anomalib_ncd.regions.classes.merging import choose_classes, merging_temperature_of, region_weights
from anomalib_ncd.regions.classes.rejection import is_image_unknown
from anomalib_ncd.regions.crops import Region, cut_regions
from anomalib_ncd.regions.mebin import normalize_anomaly_map
from anomalib_ncd.regions.views import eval_view, whole_view


class CutImage(NamedTuple):
    """An image with its regions, ready for the encoder.

    Attributes:
        image: The image.
        detection: What the detector says.
        num_anomalies: Number of anomalies that MEBin estimates.
        regions: The regions, largest first.
    """

    image: ImageInput
    detection: Detection
    num_anomalies: int
    regions: list[Region]


def cut_image(image: ImageInput, detection: Detection, manifest: Manifest) -> CutImage:
    """Find and cut the regions of an image, as those of the run were.

    Raises:
        ValueError: If the map is none, holds NaN or infinity, or has its sides swapped.
    """
    binarized, regions = cut_regions(image.pixels, detection.anomaly_map, manifest.score_range, manifest.regions)
    return CutImage(image, detection, binarized.num_components, regions)


def views_of(regions: list[Region], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Views ``(R, 3, S, S)`` uint8 and masks ``(R, 1, S, S)`` float32 of regions."""
    views = [eval_view(region.image, region.mask, image_size) for region in regions]
    return np.stack([view for view, _ in views]), np.stack([mask for _, mask in views])


def whole_views_of(cuts: Sequence[CutImage], image_size: int) -> np.ndarray:
    """Views ``(R, 3, S, S)`` uint8 of the whole images, one for each region of each."""
    views = [whole_view(cut.image.pixels, image_size) for cut in cuts]
    return np.stack([view for view, cut in zip(views, cuts, strict=True) for _ in cut.regions])


def classify_image(cut: CutImage, predictions: RegionPredictions, manifest: Manifest) -> ImageResult:
    """Merge the predictions of an image's regions.

    Args:
        cut: The image with its R regions.
        predictions: Of these regions.
        manifest: Class names, temperature and thresholds.

    Returns:
        The result.
    """
    probabilities = predictions.class_probabilities
    size_hw = (cut.image.pixels.shape[0], cut.image.pixels.shape[1])
    temperature = manifest.merging_temperature or merging_temperature_of(size_hw)
    weights = region_weights(np.array([region.area for region in cut.regions]), temperature)
    merged = weights @ probabilities
    is_unknown = _unknown(predictions, manifest)
    class_id, confidence = (values[0].item() for values in choose_classes(merged[None], manifest.class_names))
    image_is_unknown = is_image_unknown(is_unknown, weights)
    reason = _normal_reason(cut, manifest.class_names[class_id], image_is_unknown, manifest.image_threshold)
    regions = tuple(
        _region_result(region, row, unknown, feature, manifest.class_names)
        for region, row, unknown, feature in zip(
            cut.regions,
            probabilities,
            is_unknown.tolist(),
            predictions.region_feature,
            strict=True,
        )
    )
    return ImageResult(
        image=None if cut.image.path is None else str(cut.image.path),
        size_hw=size_hw,
        score=float(normalize_anomaly_map(cut.detection.anomaly_map, manifest.score_range).max() / 255),
        detector_score=cut.detection.score,
        is_normal=reason is not None,
        normal_reason=reason,
        class_id=class_id,
        class_name=manifest.class_names[class_id],
        confidence=confidence,
        classes=_classes_of(class_id, regions, manifest.class_names),
        is_unknown=image_is_unknown,
        num_anomalies=cut.num_anomalies,
        probabilities=tuple(merged.tolist()),
        regions=regions,
    )


def _classes_of(class_id: int, regions: tuple[RegionResult, ...], class_names: tuple[str, ...]) -> tuple[str, ...]:
    """All classes of an image, as the tables of a run have them."""
    scores, areas, confidences, class_ids = (
        np.array([getattr(region, name) for region in regions], kind)
        for name, kind in (("score", np.float32), ("area", int), ("confidence", np.float32), ("class_id", int))
    )
    one_image = np.zeros(len(regions), int)
    counting = counting_regions(scores, areas, confidences, one_image)
    normal = class_names.index(NORMAL_NAME) if NORMAL_NAME in class_names else None
    [found] = classes_of_images(np.array([class_id]), class_ids, counting, one_image, class_names, normal)
    return tuple(class_names[slot] for slot in found)


def _region_result(
    region: Region,
    probabilities: np.ndarray,
    is_unknown: bool,
    feature: np.ndarray,
    class_names: tuple[str, ...],
) -> RegionResult:
    """Result of one region."""
    class_id, confidence = (values[0].item() for values in choose_classes(probabilities[None], class_names))
    return RegionResult(
        box_xyxy=region.box_xyxy,
        area=region.area,
        score=region.score,
        class_id=class_id,
        class_name=class_names[class_id],
        confidence=confidence,
        is_unknown=is_unknown,
        probabilities=tuple(probabilities.tolist()),
        mask=region.mask,
        feature=feature,
    )


def _unknown(predictions: RegionPredictions, manifest: Manifest) -> np.ndarray:
    """Which regions are too far from all that is known, ``(R,)`` bool."""
    if manifest.rejection is None:
        return np.zeros(len(predictions.class_probabilities), dtype=bool)
    return predictions.neighbour_similarity < manifest.rejection.threshold


def _normal_reason(
    cut: CutImage,
    class_name: str,
    is_unknown: bool,
    image_threshold: float | None,
) -> NormalReason | None:
    """Why an image is normal, if it is."""
    score, is_anomalous = cut.detection.score, cut.detection.is_anomalous
    if image_threshold is not None and score is not None:
        is_anomalous = score > image_threshold
    if is_anomalous is False:
        return "detector"
    if cut.num_anomalies == 0:
        return "empty_mask"
    return "class" if class_name == NORMAL_NAME and not is_unknown else None
