# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Labelled base classes: defects of other products that teach what makes two defects alike."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anomalib_ncd.regions.reading.file_bytes import read_bytes
from anomalib_ncd.regions.reading.images import decode_samples, read_image
from anomalib_ncd.regions.reading.listing import ImageFile, list_images, narrow


@dataclass(frozen=True)
class LabelledImage:
    """An image of a class and its mask, non-zero on the defect, where there is one."""

    image: ImageFile
    class_name: str
    mask_path: Path | None = None


def list_base(folder: str | Path, base_list: str | Path | None = None) -> tuple[list[LabelledImage], list[str]]:
    """List the base images of a folder ``images/<class>`` with masks in ``masks/<class>``.

    Names of base classes live in a space of their own: a novel class may have the same name.

    Args:
        folder: Folder that holds ``images`` and ``masks``.
        base_list: Text file that narrows the images down: one path relative to ``images`` a line.

    Returns:
        Images in the order of their paths, and the class names, sorted.

    Raises:
        FileNotFoundError: If a folder is missing or empty, or an image has no mask of the same stem.
        ValueError: If an image lies in no folder of a class.
    """
    folder = Path(folder)
    images, masks = _files_by_key(folder / "images"), _files_by_key(folder / "masks")
    keys = sorted(images) if base_list is None else narrow(images, base_list, folder / "images")
    class_names = sorted({Path(key).parent.as_posix() for key in keys})
    if "." in class_names:
        msg = (
            f"Base images must lie in a folder of their class, but {images[keys[0]].path} lies at the top of `images`."
        )
        raise ValueError(msg)
    _check_masks(keys, images, masks, folder)
    return [LabelledImage(images[key], Path(key).parent.as_posix(), masks[key].path) for key in keys], class_names


def files_of(images: Iterable[LabelledImage]) -> list[Path]:
    """Images and masks as files, in order."""
    return [file for one in images for file in (one.image.path, one.mask_path) if file is not None]


def read_base_region(labelled: LabelledImage) -> tuple[np.ndarray, np.ndarray]:
    """Read a base image, one region as a whole: pixels ``(H, W, 3)`` uint8 and mask ``(H, W)`` bool."""
    image, mask_path = read_image(labelled.image.path), labelled.mask_path
    return image, np.ones(image.shape[:2], bool) if mask_path is None else _read_mask(mask_path, image.shape[:2])


def _files_by_key(folder: Path) -> dict[str, ImageFile]:
    """Image files below a folder by relative path without suffix."""
    if not folder.is_dir():
        msg = f"There is no folder {folder}; base data needs images/<class> and masks/<class>."
        raise FileNotFoundError(msg)
    return {image.key: image for image in list_images(folder, argument="base")}


def _check_masks(keys: list[str], images: dict[str, ImageFile], masks: dict[str, ImageFile], folder: Path) -> None:
    """Every base image needs a mask: its class is learnt from what the mask shows."""
    missing = [key for key in keys if key not in masks]
    if missing:
        classes = sorted({Path(key).parent.as_posix() for key in missing})
        msg = (
            f"{len(missing)} base images of the classes {classes} have no mask, such as {images[missing[0]].path}. "
            f"Put a mask of the same name below {folder / 'masks'}, or take the images away."
        )
        raise FileNotFoundError(msg)


def _read_mask(path: Path, size_hw: tuple[int, int]) -> np.ndarray:
    """Read a mask as bool at the image's size."""
    mask = decode_samples(read_bytes(path, "Base mask"), f"Base mask {path}")
    if mask.ndim == 3:
        mask = mask.max(axis=2)
    if mask.shape != size_hw:
        mask = cv2.resize(mask, size_hw[::-1], interpolation=cv2.INTER_NEAREST)
    # Masks are stored as 0/255, as 0/1 or, as JPEG, with noise around both.
    return mask > mask.max() // 2
