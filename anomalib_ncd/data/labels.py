# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Ground truth: classes of images and of single defects. It serves evaluation only; nothing else ever sees it."""

import csv
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import cv2
import numpy as np

from anomalib_ncd.regions.reading.images import decode_samples
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, ImageFile, find_files, key_of, read_bytes, read_text

logger = logging.getLogger(__name__)

UNLABELLED = -1

BOX_COLUMNS = ("left", "top", "right", "bottom")


def read_labels(images: Sequence[ImageFile], labels: str | Path | None) -> list[str | None]:
    """Look up the class name of each image; ``None`` where it has no label.

    ``labels`` are ``None``, ``"folders"`` to take the name of the folder that holds the image, or a CSV file with the
    columns ``image`` (relative path, with or without suffix) and ``class``. ``ValueError`` if the CSV lacks a column or
    a value, names no image or one in two ways, or an image lies in no class folder.
    """
    if labels is None:
        return [None] * len(images)
    if str(labels) == "folders":
        loose = [image.path for image in images if not image.folder_name]
        if loose:
            msg = f'labels="folders" needs a class folder around each image, but {loose[0]} lies at the top.'
            raise ValueError(msg)
        return [image.folder_name for image in images]
    by_key = _read_csv(Path(labels))
    num_missing = _num_missing(by_key, images, labels)
    if num_missing:
        logger.warning("%d of %d images have no label in %s.", num_missing, len(images), labels)
    return [by_key.get(image.key) for image in images]


def class_ids(names: Sequence[str | None], normal_label: str) -> tuple[list[int], list[str]]:
    """Number class names, ``normal_label`` first and the others by name: ids (-1 where unknown), and names in order."""
    class_names = sorted({name for name in names if name is not None}, key=lambda name: (name != normal_label, name))
    index = {name: i for i, name in enumerate(class_names)}
    return [UNLABELLED if name is None else index[name] for name in names], class_names


def _read_csv(file: Path) -> dict[str, str]:
    if not file.is_file():
        msg = f'There is no label file {file}; give "folders" or a CSV file with the columns image and class.'
        raise FileNotFoundError(msg)
    names: dict[str, str] = {}
    for where, (image, name) in label_rows(file):
        if names.setdefault(key_of(image), name) != name:
            msg = f"{where} calls {image!r} {name!r}, another one {names[key_of(image)]!r}."
            raise ValueError(msg)
    return names


def label_rows(file: Path, more_columns: Sequence[str] = ()) -> Iterator[tuple[str, list[str]]]:
    """What each line of a label file says of ``image``, ``class`` and further columns, and where it stands."""
    reader = csv.DictReader(StringIO(read_text(file), newline=""))
    columns = ("image", "class", *more_columns)
    missing = set(columns) - set(reader.fieldnames or [])
    if missing:
        msg = f"The label file {file} lacks the columns {sorted(missing)}; it has {reader.fieldnames}."
        raise ValueError(msg)
    for row in reader:
        where, values = f"Line {reader.line_num} of {file}", [(row[column] or "").strip() for column in columns]
        if not all(values[:2]):
            named = "the class of its defect" if more_columns else "its class"
            msg = f"{where} must name an image and {named}, got {values[0]!r} and {values[1]!r}."
            raise ValueError(msg)
        yield where, values


@dataclass(frozen=True)
class Defect:
    """A defect of an image: its kind, its box in half-open pixels, and its pixels in there, ``(h, w)`` bool.

    Where only the box is known, these are all of it.
    """

    class_name: str
    box_xyxy: tuple[int, int, int, int]
    mask: np.ndarray = field(repr=False, compare=False)


def has_defects(labels: str | Path | None) -> bool:
    """Whether labels name single defects: a folder of masks, or a CSV file with the columns of a box."""
    if labels is None or str(labels) == "folders" or not Path(labels).exists():
        return False
    if Path(labels).is_dir():
        return True
    return set(BOX_COLUMNS) <= set(csv.DictReader(StringIO(read_text(labels))).fieldnames or [])


def read_defects(images: Sequence[ImageFile], labels: str | Path) -> list[list[Defect]]:
    """Look up the defects of each image, in the order of ``images``; none where the labels don't name the image.

    ``labels`` is a CSV file with the columns ``image`` (relative path, with or without suffix), ``left``, ``top``,
    ``right``, ``bottom`` (half-open pixels) and ``class``, one row a defect; or a folder of masks with the relative
    paths and stems of the images, in which 0 is no defect and any other value the number of a class. Each component of
    a class is a defect, see :func:`components`. ``ValueError`` if a row or a mask can't be used, or no image is named.
    """
    by_key = _of_masks(Path(labels), images) if Path(labels).is_dir() else _of_rows(Path(labels))
    num_missing = _num_missing(by_key, images, labels)
    if num_missing:
        logger.warning("%d of %d images are not in %s: taken to have no defect.", num_missing, len(images), labels)
    return [by_key.get(image.key, []) for image in images]


def _num_missing(by_key: Collection[str], images: Sequence[ImageFile], labels: str | Path) -> int:
    """Number of images that labels don't name; an error where they name none."""
    num_missing = sum(image.key not in by_key for image in images)
    if num_missing == len(images):
        msg = f"The labels in {labels} name none of the {len(images)} images; its paths should be like {images[0].key}."
        raise ValueError(msg)
    return num_missing


def image_labels(defects: Sequence[Sequence[Defect]], normal_label: str) -> list[str | None]:
    """Class of each image: that of its defects, the normal one without any, ``None`` where they are of several."""
    kinds = [{defect.class_name for defect in of_image} or {normal_label} for of_image in defects]
    return [next(iter(names)) if len(names) == 1 else None for names in kinds]


def components(mask: np.ndarray, class_name: str = "defect") -> list[Defect]:
    """Components of a mask ``(H, W)`` bool; pieces up to two pixels apart are one."""
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)) if mask.any() else mask.astype(np.uint8)
    count, labels = cv2.connectedComponents(near, connectivity=8)
    found = []
    for number in range(1, count):
        own = (labels == number) & mask
        left, top, width, height = cv2.boundingRect(own.astype(np.uint8))
        box = (left, top, left + width, top + height)
        found.append(Defect(class_name, box, own[top : top + height, left : left + width]))
    return found


def _of_rows(file: Path) -> dict[str, list[Defect]]:
    by_key: dict[str, list[Defect]] = {}
    for where, (image, name, *edges) in label_rows(file, BOX_COLUMNS):
        of_image = by_key.setdefault(key_of(image), [])
        if any(edges):
            of_image.append(_of_box(name, edges, where))
    return by_key


def _of_box(class_name: str, edges: Sequence[str], where: str) -> Defect:
    try:
        left, top, right, bottom = (round(float(edge)) for edge in edges)
    except (ValueError, OverflowError):
        left = right = top = bottom = 0
    if not (0 <= left < right and 0 <= top < bottom):
        msg = f"{where} must have left < right and top < bottom in pixels, got {', '.join(edges)}."
        raise ValueError(msg)
    return Defect(class_name, (left, top, right, bottom), np.ones((bottom - top, right - left), dtype=bool))


def _of_masks(folder: Path, images: Sequence[ImageFile]) -> dict[str, list[Defect]]:
    wanted = {image.key for image in images}
    by_key = {}
    for file in find_files(folder, IMAGE_SUFFIXES):
        key = key_of(file.relative_to(folder))
        if key not in wanted:
            continue
        values = decode_samples(read_bytes(file, "Mask"), f"Mask {file}")
        if values.ndim != 2 or values.dtype.kind not in "ui":
            msg = f"The mask {file} must be grey with the number of a class in each pixel, got shape {values.shape}."
            raise ValueError(msg)
        numbers = [int(number) for number in np.unique(values) if number]
        by_key[key] = [defect for number in numbers for defect in components(values == number, str(number))]
    return by_key
