# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Examples of kinds of defect that are known before discovery: a folder of images for each."""

import os
import re
from collections.abc import Collection
from pathlib import Path

from anomalib_ncd.data.base_classes import LabelledImage
from anomalib_ncd.regions.classes.prediction import CLASS_SEPARATOR
from anomalib_ncd.regions.reading.listing import ImageFile, list_images

MASK_SUFFIX = "_mask"
_OWN_NAME = re.compile(r"class_\d+")


def list_examples(folder: str | Path, images: Collection[ImageFile] = ()) -> list[LabelledImage]:
    """List examples in folders of their classes, ``<class>/<name>.png``; masks lie beside, ``<name>_mask.png``.

    Args:
        folder: Folder of the folders.
        images: Images that are none of the examples, as classes are discovered in them.

    Returns:
        The examples in the order of their paths.

    Raises:
        FileNotFoundError: If there is no example, or none of a class.
        ValueError: If an image lies in no folder of a class, a class can't be called so, or one of ``images`` is there.
    """
    folder = Path(folder)
    files = {image.key: image for image in list_images(folder, argument="examples")}
    masks = {key.removesuffix(MASK_SUFFIX): key for key in files if key.endswith(MASK_SUFFIX)}
    masks = {key: mask for key, mask in masks.items() if key in files}
    found = [
        LabelledImage(
            image, key.partition("/")[0] if "/" in key else "", files[masks[key]].path if key in masks else None
        )
        for key, image in files.items()
        if key not in masks.values()
    ]
    classes = {example.class_name for example in found}
    folders = [one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")]
    empty = sorted(set(folders) - classes)
    if empty:
        msg = f"The class {empty[0]!r} of the examples in {folder} has no images; put some there or take it away."
        raise FileNotFoundError(msg)
    _check_names(found)
    known = {os.path.realpath(image.path) for image in images}
    for example in found:
        if os.path.realpath(example.image.path) in known:
            msg = f"The example {example.image.path} is one of the images, too; examples are no part of them: move it."
            raise ValueError(msg)
    return found


def _check_names(examples: Collection[LabelledImage]) -> None:
    """Refuse what no class can be called."""
    for example in examples:
        name = example.class_name
        if not name:
            msg = f"Examples must lie in a folder of their class, but {example.image.path} lies at the top."
            raise ValueError(msg)
        if CLASS_SEPARATOR in name or _OWN_NAME.fullmatch(name):
            reason = f"{CLASS_SEPARATOR!r} parts names in tables" if CLASS_SEPARATOR in name else "discovery numbers so"
            msg = (
                f"A class of examples can't be called {name!r}, as {reason}; rename the folder of {example.image.path}."
            )
            raise ValueError(msg)
