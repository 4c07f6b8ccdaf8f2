# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Ground-truth class names of images. They serve evaluation only; nothing that is trained or predicted sees them."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from anomalib_ncd.data.images import ImageRecord, key_of

logger = logging.getLogger(__name__)

UNLABELLED = -1


def read_labels(images: Sequence[ImageRecord], labels: str | Path | None) -> list[str | None]:
    """Look up the class name of each image.

    Args:
        images: Images to look up.
        labels: ``None`` for no labels, ``"folders"`` to take the name of the folder that holds the image, or a CSV
            file with the columns ``image`` (relative path, with or without suffix) and ``class``.

    Returns:
        One name per image, in the order of ``images``; ``None`` where an image has no label.

    Raises:
        FileNotFoundError: If the CSV doesn't exist.
        ValueError: If the CSV lacks a column or names none of the images, or an image lies in no class folder.
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
    """Number class names: the normal class first where there is one, the others in alphabetical order.

    Args:
        names: Class name per image, ``None`` where unknown.
        normal_label: Name of the class of good images.

    Returns:
        Class id per image (-1 where unknown) and the class names in the order of their ids.

    Example:
        >>> class_ids(["scratch", "good", None, "dent"], "good")
        ([2, 0, -1, 1], ['good', 'dent', 'scratch'])
    """
    class_names = sorted({name for name in names if name is not None}, key=lambda name: (name != normal_label, name))
    index = {name: i for i, name in enumerate(class_names)}
    return [UNLABELLED if name is None else index[name] for name in names], class_names


def _folder_label(image: ImageRecord) -> str:
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
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = {"image", "class"} - set(reader.fieldnames or [])
        if missing:
            msg = f"The label file {file} lacks the columns {sorted(missing)}; it has {reader.fieldnames}."
            raise ValueError(msg)
        return {key_of(row["image"].strip()): row["class"].strip() for row in reader}
