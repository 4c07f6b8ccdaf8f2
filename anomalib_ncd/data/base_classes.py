# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Labelled base classes: defects of other products that teach what makes two defects alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anomalib_ncd.data.images import IMAGE_SUFFIXES, key_of, read_image, read_relative_paths


@dataclass(frozen=True)
class BaseRecord:
    """A labelled base image and its mask on disk.

    Attributes:
        image_path: Image file.
        mask_path: Mask file, non-zero on the defect.
        class_id: Index into the base class names.
    """

    image_path: Path
    mask_path: Path
    class_id: int


def list_base(folder: str | Path, base_list: str | Path | None = None) -> tuple[list[BaseRecord], list[str]]:
    """List the base images of a folder ``images/<class>`` with masks in ``masks/<class>``.

    Base class names live in a space of their own: a base class may have the same name as a novel class without being
    mixed up with it.

    Args:
        folder: Folder that holds ``images`` and ``masks``.
        base_list: Text file that narrows the images down: one path relative to ``images`` a line.

    Returns:
        Records in the order of their paths, and the class names in the order of the class ids.

    Raises:
        FileNotFoundError: If a folder is missing or empty, or an image has no mask of the same stem.
    """
    folder = Path(folder)
    images = _files_by_key(folder / "images")
    masks = _files_by_key(folder / "masks")
    keys = sorted(images) if base_list is None else _listed(images, base_list, folder)
    class_names = sorted({Path(key).parent.as_posix() for key in keys})
    if "." in class_names:
        msg = f"Base images must lie in a folder of their class, but {images[keys[0]]} lies at the top of `images`."
        raise ValueError(msg)
    _check_masks(keys, images, masks, folder)
    ids = {name: i for i, name in enumerate(class_names)}
    records = [BaseRecord(images[key], masks[key], ids[Path(key).parent.as_posix()]) for key in keys]
    return records, class_names


def read_base_region(record: BaseRecord) -> tuple[np.ndarray, np.ndarray]:
    """Read a base image, which is one region as a whole, as in the paper.

    Args:
        record: Image and mask to read.

    Returns:
        Pixels ``(H, W, 3)`` uint8 and mask ``(H, W)`` bool.

    Raises:
        ValueError: If image or mask can't be read.
    """
    image = read_image(record.image_path)
    return image, _read_mask(record.mask_path, image.shape[:2])


def _files_by_key(folder: Path) -> dict[str, Path]:
    """Image files below a folder by relative path without suffix."""
    if not folder.is_dir():
        msg = f"There is no folder {folder}; base data needs images/<class> and masks/<class>."
        raise FileNotFoundError(msg)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        msg = f"The folder {folder} holds no images; base data needs images/<class> and masks/<class>."
        raise FileNotFoundError(msg)
    return {key_of(path.relative_to(folder)): path for path in paths}


def _listed(images: dict[str, Path], base_list: str | Path, folder: Path) -> list[str]:
    """Keys that a list file names."""
    keys = sorted({key_of(line) for line in read_relative_paths(base_list)})
    missing = [key for key in keys if key not in images]
    if missing or not keys:
        msg = f"{base_list} names {len(keys)} base images, of which {folder / 'images'} lacks {missing[:3]}."
        raise FileNotFoundError(msg)
    return keys


def _check_masks(keys: list[str], images: dict[str, Path], masks: dict[str, Path], folder: Path) -> None:
    """Every base image needs a mask: its class is learnt from what the mask shows."""
    missing = [key for key in keys if key not in masks]
    if missing:
        classes = sorted({Path(key).parent.as_posix() for key in missing})
        msg = (
            f"{len(missing)} base images of the classes {classes} have no mask, such as {images[missing[0]]}. "
            f"Put a mask of the same name below {folder / 'masks'}, or take the images away."
        )
        raise FileNotFoundError(msg)


def _read_mask(path: Path, size_hw: tuple[int, int]) -> np.ndarray:
    """Read a mask as bool at the image's size."""
    mask = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) if path.stat().st_size else None
    if mask is None:
        msg = f"Cannot read base mask {path}: it is empty or no image file. Mend or remove it."
        raise ValueError(msg)
    if mask.shape != size_hw:
        mask = cv2.resize(mask, size_hw[::-1], interpolation=cv2.INTER_NEAREST)
    # Masks are stored as 0/255, as 0/1 or, as JPEG, with noise around both.
    return mask > mask.max() // 2
