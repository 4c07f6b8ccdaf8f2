# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A run in the formats of other tools: COCO, YOLO, a table, or a folder per class."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import yaml

from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.crops import crop
from anomalib_ncd.regions.reading.listing import mark_output
from anomalib_ncd.regions.writing import write_file
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.results.tables import UNKNOWN, csv_bytes

ExportFormat = Literal["coco", "yolo", "csv", "folders"]
COLUMNS = ("image", "class", "confidence", "left", "top", "right", "bottom", "area", "polygons")


@dataclass(frozen=True)
class Shape:
    """A region as other tools take it."""

    image: int  # index of the image
    class_name: str  # its class; "unknown" where it resembles no class of the run
    confidence: float  # probability of the class, 0 to 1
    box_xyxy: tuple[int, int, int, int]  # tight box of the mask in image pixels, half-open
    area: int  # pixels of the mask
    polygons: list[list[float]]  # outlines [x, y, x, y, …] of its parts in image pixels; holes are filled


def export_results(
    results: RunResults,
    class_names: Sequence[str],
    table: RegionTable,
    output: str | Path,
    kind: ExportFormat = "coco",
    *,
    copy: bool = False,
) -> None:
    """Write what a run found for other tools.

    Kinds are ``"coco"`` (``annotations.json``), ``"yolo"`` (polygons, one text file an image, and ``data.yaml``) and
    ``"csv"`` (``regions.csv``), each of regions with a mask that aren't *normal*, and ``"folders"`` of images by class;
    ``ValueError`` for others. Images are linked, or copied with ``copy``. ``table`` has the results' regions in order.
    """
    writers = {"coco": _write_coco, "yolo": _write_yolo, "csv": _write_csv, "folders": _write_folders}
    if kind not in writers:
        msg = f"`format` must be one of {', '.join(writers)}, got {kind!r}."
        raise ValueError(msg)
    output = Path(output)
    mark_output(output)
    writers[kind](results, class_names, table, output, copy)


def shapes_of(results: RunResults, class_names: Sequence[str], table: RegionTable) -> list[Shape]:
    """Regions with a mask that are not *normal*, in the order of the table."""
    merging, shapes, row = results.merging(class_names), [], -1
    for image, result in enumerate(results.image_results(class_names)):
        height, width = results.batch.image_size[image].tolist()
        for region in result.regions:
            row += 1
            if not region.area or (merging.is_normal(region.class_id) and not region.is_unknown):
                continue
            left, top = round(region.box_xyxy[0]), round(region.box_xyxy[1])
            mask = crop(table.load(row)[1], (-left, -top, width - left, height - top))  # at its place in the image
            if mask.any():
                name = UNKNOWN if region.is_unknown else region.class_name
                x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
                box, polygons = (x, y, x + w, y + h), polygons_of(mask)
                shapes.append(Shape(image, name, region.confidence, box, int(mask.sum()), polygons))
    return shapes


def polygons_of(mask: np.ndarray) -> list[list[float]]:
    """Outline the parts of a mask ``(H, W)``: ``[x, y, …]`` around the middles of their pixels; holes are filled."""
    # Each pixel becomes four, so that outlines run between the middles of pixels.
    fine = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((contour.reshape(-1, 2) + 0.5) / 2).ravel().tolist() for contour in contours]


def _classes(shapes: Sequence[Shape], class_names: Sequence[str], results: RunResults) -> list[str]:
    """Classes of defects in the order of their slots, used or not, and *unknown* where a region is."""
    merging = results.merging(class_names)
    names = dict.fromkeys(name for slot, name in enumerate(class_names) if not merging.is_normal(slot))
    return [*names, *([UNKNOWN] if any(shape.class_name == UNKNOWN for shape in shapes) else [])]


def _file_name(results: RunResults, image: int) -> str:
    """Name of an image in the export: its key, with its own ending."""
    return results.image_keys[image] + Path(results.batch.image_path[image]).suffix.lower()


def _place_image(source: str, target: Path, *, copy: bool) -> None:
    """Link or copy an image; where links can't be made, it is copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if not copy:
        try:
            target.symlink_to(os.path.abspath(source))  # noqa: PTH100 - links of the user's stay
        except OSError:
            copy = True
    if copy:
        shutil.copyfile(source, target)


def _place_images(results: RunResults, folder: Path, *, copy: bool) -> None:
    """Link or copy all images."""
    for image, path in enumerate(results.batch.image_path):
        _place_image(path, folder / _file_name(results, image), copy=copy)


def _write_coco(results: RunResults, class_names: Sequence[str], table: RegionTable, output: Path, copy: bool) -> None:
    """COCO: ``annotations.json`` and ``images``."""
    shapes = shapes_of(results, class_names, table)
    classes = _classes(shapes, class_names, results)
    annotations: list[dict[str, Any]] = []
    for number, shape in enumerate(shapes, start=1):
        left, top, right, bottom = shape.box_xyxy
        annotations.append(
            {
                "id": number,
                "image_id": shape.image + 1,
                "category_id": classes.index(shape.class_name) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": shape.area,
                "segmentation": shape.polygons,
                "iscrowd": 0,
                "score": round(shape.confidence, 6),
            }
        )
    sizes = results.batch.image_size.tolist()
    images = [
        {"id": image + 1, "file_name": _file_name(results, image), "height": height, "width": width}
        for image, (height, width) in enumerate(sizes)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_file(output / "annotations.json", json.dumps(content, ensure_ascii=False))
    _place_images(results, output / "images", copy=copy)


def _write_yolo(results: RunResults, class_names: Sequence[str], table: RegionTable, output: Path, copy: bool) -> None:
    """YOLO's segments: ``data.yaml``, ``images``, and ``labels`` with a polygon a line, in shares of the image."""
    shapes = shapes_of(results, class_names, table)
    classes = _classes(shapes, class_names, results)
    lines: list[list[str]] = [[] for _ in results.image_keys]
    for shape in shapes:
        height, width = results.batch.image_size[shape.image].tolist()
        for polygon in shape.polygons:
            shares = np.array(polygon).reshape(-1, 2) / (width, height)
            points = " ".join(f"{share:.6f}" for share in shares.ravel().tolist())
            lines[shape.image].append(f"{classes.index(shape.class_name)} {points}")
    for key, own in zip(results.image_keys, lines, strict=True):
        write_file(output / "labels" / f"{key}.txt", "".join(f"{line}\n" for line in own))
    settings = {"path": str(output.absolute()), "train": "images", "val": "images", "names": dict(enumerate(classes))}
    write_file(output / "data.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    _place_images(results, output / "images", copy=copy)


def _write_csv(results: RunResults, class_names: Sequence[str], table: RegionTable, output: Path, copy: bool) -> None:
    """A table with a row a region; polygons are JSON."""
    del copy
    rows = [
        [
            results.batch.image_path[shape.image],
            shape.class_name,
            round(shape.confidence, 6),
            *shape.box_xyxy,
            shape.area,
            json.dumps(shape.polygons),
        ]
        for shape in shapes_of(results, class_names, table)
    ]
    write_file(output / "regions.csv", csv_bytes([COLUMNS, *rows]))


def _write_folders(
    results: RunResults, class_names: Sequence[str], table: RegionTable, output: Path, copy: bool
) -> None:
    """A folder of images for each class, as classifiers take them; subfolders of images become part of their names."""
    del table
    for image, result in enumerate(results.image_results(class_names)):
        normal = class_names[results.normal_slot] if results.normal_slot is not None else results.normal_label
        name = UNKNOWN if result.is_unknown else normal if result.is_normal else result.class_name
        target = output / _safe(name) / _safe(_file_name(results, image))
        _place_image(results.batch.image_path[image], target, copy=copy)


def _safe(name: str) -> str:
    """A name that is one part of a path."""
    return name.replace("/", "__").replace("\\", "__").lstrip(".") or "_"
