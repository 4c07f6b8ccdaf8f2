# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Ground-truth class names of images. They serve evaluation only; nothing that is trained or predicted sees them."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

from anomalib_ncd.regions.reading.listing import ImageFile, key_of, read_text

logger = logging.getLogger(__name__)

UNLABELLED = -1


def read_labels(images: Sequence[ImageFile], labels: str | Path | None) -> list[str | None]:
    """Look up the class name of each image; ``None`` where it has no label.

    Args:
        images: Images to look up.
        labels: ``None`` for no labels, ``"folders"`` to take the name of the folder that holds the image, or a CSV
            file with the columns ``image`` (relative path, with or without suffix) and ``class``.

    Raises:
        ValueError: If the CSV lacks a column or a value, names no image or one in two ways, or an image lies
            in no class folder.
    """
    if labels is None:
        return [None] * len(images)
    if str(labels) == "folders":
        return [_folder_label(image) for image in images]
    by_key = _read_csv(Path(labels))
    names = [by_key.get(image.key) for image in images]
    if not any(names):
        msg = f"The labels in {labels} name none of the {len(images)} images; its paths should be like {images[0].key}."
        raise ValueError(msg)
    if None in names:
        logger.warning("%d of %d images have no label in %s.", names.count(None), len(images), labels)
    return names


def class_ids(names: Sequence[str | None], normal_label: str) -> tuple[list[int], list[str]]:
    """Number class names, ``normal_label`` first and the others by name: ids (-1 where unknown), and names in order.

    Example:
        >>> class_ids(["scratch", "good", None, "dent"], "good")
        ([2, 0, -1, 1], ['good', 'dent', 'scratch'])
    """
    class_names = sorted({name for name in names if name is not None}, key=lambda name: (name != normal_label, name))
    index = {name: i for i, name in enumerate(class_names)}
    return [UNLABELLED if name is None else index[name] for name in names], class_names


def _folder_label(image: ImageFile) -> str:
    """Name of the folder an image lies in."""
    if not image.folder_name:
        msg = f'labels="folders" needs a class folder around each image, but {image.path} lies at the top.'
        raise ValueError(msg)
    return image.folder_name


def _read_csv(file: Path) -> dict[str, str]:
    """Class name by key."""
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
