# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Images of an anomalib datamodule or a folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode

from anomalib_ncd.regions.reading.listing import ImageFile, list_images, listed_images, unique_images


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
