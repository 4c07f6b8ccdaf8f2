# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Predictions of a run as plain rows, and the CSV files they are kept in."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.regions.classes.image_classes import CLASS_SEPARATOR, classes_of_images, counting_regions
from anomalib_ncd.results.class_names import NORMAL


@dataclass(frozen=True)
class ImagePrediction:
    """Class of an image: a row of ``predictions.csv``.

    Attributes:
        image: Path of the image.
        class_name: Discovered class, the column ``class``.
        confidence: Probability of the class, 0 to 1.
        num_regions: Number of regions the class was merged from.
        unknown: Whether the regions that decide the class are like none of those it was discovered in.
        classes: All classes of the image, that of the merged regions first, with ``;`` between them; several where
            regions that count are of different classes, see :func:`~anomalib_ncd.regions.classes.image_classes`.
    """

    image: str
    class_name: str
    confidence: float
    num_regions: int
    unknown: bool = False
    classes: str = ""


@dataclass(frozen=True)
class RegionPrediction:
    """Class of a region: a row of ``regions.csv``.

    Attributes:
        image: Path of the image.
        left: Box in image pixels, half-open; may leave the image.
        top: As above.
        right: As above.
        bottom: As above.
        area: Mask pixels inside.
        score: Largest anomaly score inside, 0 to 1 over the score range.
        class_name: Discovered class, the column ``class``.
        confidence: Probability of the class, 0 to 1.
        unknown: Whether the region is like none of those that the classes were discovered in.
    """

    image: str
    left: float
    top: float
    right: float
    bottom: float
    area: int
    score: float
    class_name: str
    confidence: float
    unknown: bool = False


def image_predictions(
    batches: Iterable[NcdBatch],
    class_names: Sequence[str],
    normal_name: str = NORMAL,
) -> list[ImagePrediction]:
    """Turn predicted batches into one row per image.

    Args:
        batches: What ``Engine.predict`` returns.
        class_names: Name of each novel class.
        normal_name: Name of the class of false alarms, if there is one.

    Returns:
        Rows in the order of the batches.

    Raises:
        ValueError: If a batch has no predictions.
    """
    rows = []
    for batch in batches:
        classes, scores = _predicted(batch.pred_class_id, batch.pred_class_score)
        counts = batch.region_image_index.bincount(minlength=batch.batch_size).tolist()
        unknown = _flags(batch.unknown, batch.batch_size)
        sets = class_sets(batch, class_names, normal_name)
        for index, path in enumerate(batch.image_path):
            names = CLASS_SEPARATOR.join(class_names[slot] for slot in sets[index])
            row = class_names[classes[index]], round(scores[index], 6), counts[index], unknown[index], names
            rows.append(ImagePrediction(path, *row))
    return rows


def class_sets(batch: NcdBatch, class_names: Sequence[str], normal_name: str = NORMAL) -> list[list[int]]:
    """All classes of each image: that of the merged regions, then those of other regions that count.

    Args:
        batch: Predicted images.
        class_names: Name of each slot; slots of one name go by the first of them.
        normal_name: Name of the class of false alarms, if there is one.

    Returns:
        Slots of each image. *Normal* is among them only where it is the class of the merged regions.

    Raises:
        ValueError: If the batch has no predictions.
    """
    _predicted(batch.pred_class_id, batch.pred_class_score)
    region_ids, region_confidences = batch.region_pred_class_id, batch.region_pred_class_score
    if batch.pred_class_id is None or region_ids is None or region_confidences is None:
        msg = "The batch holds no predictions of regions; pass what Engine.predict returns."
        raise ValueError(msg)
    image_index = batch.region_image_index.cpu().numpy()
    counting = counting_regions(
        batch.region_score.float().cpu().numpy(),
        batch.region_area.cpu().numpy(),
        region_confidences.float().cpu().numpy(),
        image_index,
    )
    normal = list(class_names).index(normal_name) if normal_name in class_names else None
    image_classes, region_classes = (ids.cpu().numpy() for ids in (batch.pred_class_id, region_ids))
    return classes_of_images(image_classes, region_classes, counting, image_index, class_names, normal)


def region_predictions(batches: Iterable[NcdBatch], class_names: Sequence[str]) -> list[RegionPrediction]:
    """Turn predicted batches into one row per region; arguments and errors as :func:`image_predictions`."""
    rows = []
    for batch in batches:
        classes, scores = _predicted(batch.region_pred_class_id, batch.region_pred_class_score)
        unknown = _flags(batch.region_unknown, len(classes))
        for index, (class_id, confidence) in enumerate(zip(classes, scores, strict=True)):
            left, top, right, bottom = batch.region_box_xyxy[index].tolist()
            rows.append(
                RegionPrediction(
                    image=batch.image_path[int(batch.region_image_index[index])],
                    left=left,
                    top=top,
                    right=right,
                    bottom=bottom,
                    area=int(batch.region_area[index]),
                    score=round(float(batch.region_score[index]), 6),
                    class_name=class_names[class_id],
                    confidence=round(confidence, 6),
                    unknown=unknown[index],
                ),
            )
    return rows


def write_csv(file: str | Path, rows: Sequence[ImagePrediction] | Sequence[RegionPrediction], row_type: type) -> None:
    """Write rows with a header; a reader never sees a half-written file.

    Args:
        file: Target; its folder is made where it is missing.
        rows: Rows to write, all of ``row_type``.
        row_type: Type of the rows; gives the header where there are none.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    names = [field.name for field in fields(row_type)]
    with unfinished.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["class" if name == "class_name" else name for name in names])
        writer.writerows([list(asdict(row).values()) for row in rows])
    unfinished.replace(file)


def _flags(flags: torch.Tensor | None, count: int) -> list[bool]:
    """Flags as a list; predictions of before there were any have none."""
    return [False] * count if flags is None else flags.tolist()


def _predicted(classes: Any, scores: Any) -> tuple[list[int], list[float]]:  # noqa: ANN401
    """Classes and confidences as lists."""
    if classes is None or scores is None:
        msg = "The batch holds no predictions; pass what Engine.predict returns."
        raise ValueError(msg)
    return classes.tolist(), scores.tolist()
