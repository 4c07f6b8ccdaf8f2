# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Images to discover classes in, normal ones, and labelled ones: base classes and examples of known kinds."""

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode

from anomalib_ncd.regions.classes.prediction import CLASS_SEPARATOR
from anomalib_ncd.regions.reading.images import decode_samples, read_image
from anomalib_ncd.regions.reading.listing import (
    ImageFile,
    list_images,
    listed_images,
    narrow,
    read_bytes,
    unique_images,
)

MASK_SUFFIX = "_mask"
_OWN_NAME = re.compile(r"class_\d+")


def images_of(
    source: str | Path | AnomalibDataModule, image_list: str | Path | None = None, argument: str = "images"
) -> list[ImageFile]:
    """List the images of a folder, or the test images of an anomalib datamodule, sorted by key.

    Of a datamodule's test images none is held back for validation. ``image_list`` narrows the images down, see
    :func:`~anomalib_ncd.regions.reading.listing.list_images`; ``argument`` is what messages call the source.
    """
    if not isinstance(source, AnomalibDataModule):
        return list_images(source, image_list, argument)
    source.setup()
    parts = [source.test_data]
    if source.val_split_mode == ValSplitMode.FROM_TEST:
        parts.append(source.val_data)
    paths = {Path(path) for part in parts for path in part.samples["image_path"]}
    if not paths:
        msg = f"The test set of {type(source).__name__} is empty; check its root and its split modes."
        raise FileNotFoundError(msg)
    root = _shared_folder(paths)
    images = unique_images(paths, root)
    return images if image_list is None else listed_images(images, image_list, root)


def find_normal_images(
    normal_images: str | Path | AnomalibDataModule | None, images: str | Path | AnomalibDataModule
) -> list[ImageFile]:
    """Find the images that are known to be normal, sorted by key; none where nothing was given.

    They come from a folder (searched recursively), or are the normal training images of an anomalib image datamodule;
    ``None`` stands for those of ``images``, if it is such a datamodule. ``FileNotFoundError`` where there are none.
    """
    source = images if normal_images is None else normal_images
    if not isinstance(source, AnomalibDataModule):
        return [] if normal_images is None else images_of(source, argument="normal_images")
    source.setup()
    samples = source.train_data.samples
    paths = [Path(path) for path in samples.loc[samples["label_index"] == 0, "image_path"]]
    if not paths:
        msg = f"{type(source).__name__} has no normal training images; give a folder of them as `normal_images`."
        raise FileNotFoundError(msg)
    return unique_images(paths, _shared_folder(paths))


def _shared_folder(paths: Iterable[Path]) -> Path:
    """The folder above those that hold the images, so that keys name those."""
    folders = {path.parent for path in paths}
    root = Path(os.path.commonpath(folders))
    return root.parent if folders == {root} else root


@dataclass(frozen=True)
class LabelledImage:
    """An image of a class and its mask, non-zero on the defect, where there is one."""

    image: ImageFile
    class_name: str
    mask_path: Path | None = None


def list_base(folder: str | Path, base_list: str | Path | None = None) -> tuple[list[LabelledImage], list[str]]:
    """List the base images of a folder ``images/<class>`` with masks in ``masks/<class>``, and the class names, sorted.

    Names of base classes live in a space of their own: a novel class may have the same name. ``FileNotFoundError`` if a
    folder is missing or empty, or an image has no mask of the same stem; ``ValueError`` if an image lies in no folder
    of a class. ``base_list`` narrows the images down: a text file with one path relative to ``images`` a line.
    """
    folder = Path(folder)
    images, masks = _files_by_key(folder / "images"), _files_by_key(folder / "masks")
    keys = sorted(images) if base_list is None else narrow(images, base_list, folder / "images")
    class_of = {key: Path(key).parent.as_posix() for key in keys}
    loose = [images[key].path for key in keys if class_of[key] == "."]
    if loose:
        msg = f"Base images must lie in a folder of their class, but {loose[0]} lies at the top of `images`."
        raise ValueError(msg)
    missing = [key for key in keys if key not in masks]
    if missing:
        msg = (
            f"{len(missing)} base images of the classes {sorted({class_of[key] for key in missing})} have no mask, "
            f"such as {images[missing[0]].path}. Put a mask of the same name below {folder / 'masks'}, or take the "
            "images away."
        )
        raise FileNotFoundError(msg)
    found = [LabelledImage(images[key], class_of[key], masks[key].path) for key in keys]
    return found, sorted(set(class_of.values()))


def list_examples(folder: str | Path, images: Collection[ImageFile] = (), masked: bool = False) -> list[LabelledImage]:
    """List examples in folders of their classes, ``<class>/<name>.png``; masks lie beside, ``<name>_mask.png``.

    ``images``, in which classes are discovered, must be none of the examples. ``FileNotFoundError`` if there is no
    example, or none of a class; ``ValueError`` if an image lies in no folder of a class, a class can't be called so,
    one of ``images`` is there, or one lacks a mask where all must be ``masked``, as no detector finds defects.
    """
    folder = Path(folder)
    files = {image.key: image for image in list_images(folder, argument="examples")}
    mask_of = {key.removesuffix(MASK_SUFFIX): file.path for key, file in files.items() if key.endswith(MASK_SUFFIX)}
    found = [
        LabelledImage(image, key.partition("/")[0] if "/" in key else "", mask_of.get(key))
        for key, image in files.items()
        if not key.endswith(MASK_SUFFIX) or key.removesuffix(MASK_SUFFIX) not in files
    ]
    folders = {one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")}
    empty = sorted(folders - {example.class_name for example in found})
    if empty:
        msg = f"The class {empty[0]!r} of the examples in {folder} has no images; put some there or take it away."
        raise FileNotFoundError(msg)
    known = {os.path.realpath(image.path) for image in images}
    for example in found:
        _check_name(example)
        if os.path.realpath(example.image.path) in known:
            msg = f"The example {example.image.path} is one of the images, too; examples are no part of them: move it."
            raise ValueError(msg)
        if masked and example.mask_path is None:
            msg = (
                f"Nothing says where the defect of the example {example.image.path} is: the run has saved maps. Put a "
                f"mask beside it, {example.image.path.stem}{MASK_SUFFIX}.png, or give a detector."
            )
            raise ValueError(msg)
    return found


def files_of(images: Iterable[LabelledImage]) -> list[Path]:
    """Images and masks as files, in order."""
    return [file for one in images for file in (one.image.path, one.mask_path) if file is not None]


def read_base_region(labelled: LabelledImage) -> tuple[np.ndarray, np.ndarray]:
    """Read a base image, one region as a whole: pixels ``(H, W, 3)`` uint8 and mask ``(H, W)`` bool."""
    image, path = read_image(labelled.image.path), labelled.mask_path
    if path is None:
        return image, np.ones(image.shape[:2], bool)
    mask = decode_samples(read_bytes(path, "Base mask"), f"Base mask {path}")
    if mask.ndim == 3:
        mask = mask.max(axis=2)
    if mask.shape != image.shape[:2]:
        mask = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    # Masks are stored as 0/255, as 0/1 or, as JPEG, with noise around both.
    return image, mask > mask.max() // 2


def _files_by_key(folder: Path) -> dict[str, ImageFile]:
    if not folder.is_dir():
        msg = f"There is no folder {folder}; base data needs images/<class> and masks/<class>."
        raise FileNotFoundError(msg)
    return {image.key: image for image in list_images(folder, argument="base")}


def _check_name(example: LabelledImage) -> None:
    """Refuse what no class can be called."""
    name, path = example.class_name, example.image.path
    if not name:
        msg = f"Examples must lie in a folder of their class, but {path} lies at the top."
        raise ValueError(msg)
    if CLASS_SEPARATOR in name or _OWN_NAME.fullmatch(name):
        reason = f"{CLASS_SEPARATOR!r} parts names in tables" if CLASS_SEPARATOR in name else "discovery numbers so"
        msg = f"A class of examples can't be called {name!r}, as {reason}; rename the folder of {path}."
        raise ValueError(msg)
