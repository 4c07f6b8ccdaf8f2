# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Find and read images; every image is known by its path relative to its source, without the suffix."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anomalib.data import AnomalibDataModule

from anomalib_ncd.regions.reading.decoding import IMAGE_SUFFIXES, decode_image


@dataclass(frozen=True)
class ImageRecord:
    """An image on disk.

    Attributes:
        path: File of the image.
        key: Path relative to the source of images, POSIX style and without suffix (``"scratch/000"``). Maps, labels
            and regions are paired with images by this key, never by their order.
    """

    path: Path
    key: str

    @property
    def folder_name(self) -> str:
        """Name of the folder that holds the image, inside the source (``""`` where it lies at the top)."""
        return Path(self.key).parent.name


def list_images(
    source: str | Path | AnomalibDataModule,
    image_list: str | Path | None = None,
    argument: str = "images",
) -> list[ImageRecord]:
    """List the images of a folder or of an anomalib datamodule's test set.

    Args:
        source: Folder (searched recursively), one image file, or an anomalib image datamodule (``MVTecAD``,
            ``Folder``, …), whose test images are taken.
        image_list: Text file that narrows the images down: one relative path a line. Defaults to ``None``, all images.
        argument: Name of the argument that the source came in, for messages.

    Returns:
        Records sorted by key.

    Raises:
        FileNotFoundError: If the source doesn't exist, holds no image, or lacks an image that ``image_list`` names.
        ValueError: If two images have the same key (``a/1.png`` and ``a/1.jpg``).
    """
    if isinstance(source, AnomalibDataModule):
        paths, root = _datamodule_images(source)
    else:
        paths, root = _folder_images(Path(source), argument)
    records = _unique_records(paths, root)
    if image_list is not None:
        records = _narrow(records, Path(image_list), root)
    return records


def normal_training_images(datamodule: AnomalibDataModule) -> list[ImageRecord]:
    """List the normal training images of an anomalib datamodule.

    Args:
        datamodule: Image datamodule (``MVTecAD``, ``Folder``, …).

    Returns:
        Records sorted by key.

    Raises:
        FileNotFoundError: If it has none.
    """
    datamodule.setup()
    samples = datamodule.train_data.samples
    paths = [Path(path) for path in samples.loc[samples["label_index"] == 0, "image_path"]]
    if not paths:
        msg = f"{type(datamodule).__name__} has no normal training images; give a folder of them as `normal_images`."
        raise FileNotFoundError(msg)
    return _unique_records(paths, _shared_folder(paths))


def digest_of_images(images: Sequence[ImageRecord]) -> str:
    """Digest of keys, sizes and times of change, which tells whether images are still the same."""
    digest = hashlib.sha256()
    for image in images:
        stat = image.path.stat()
        digest.update(repr((image.key, stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()


def read_relative_paths(list_file: str | Path) -> list[str]:
    """Read a text file with one relative path a line; blank lines and lines that start with ``#`` don't count."""
    file = Path(list_file)
    if not file.is_file():
        msg = f"There is no list file {file}; it should hold one relative path a line."
        raise FileNotFoundError(msg)
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def key_of(relative_path: str | Path) -> str:
    """Turn a relative path into a key: POSIX separators, no image suffix."""
    path = Path(relative_path)
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES | {".npy"} else path).as_posix()


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as 8-bit RGB.

    Grey images are repeated over three channels, an alpha channel is dropped, and 16-bit images are scaled by their
    full range (65,535 becomes 255), so that the same grey value means the same in every image.

    Args:
        path: Image file.

    Returns:
        Array of shape ``(H, W, 3)``, ``uint8``.

    Raises:
        ValueError: If the file can't be decoded or a side is shorter than 16 pixels.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)  # also works for paths OpenCV's own reader can't open
    except OSError:
        data = np.empty(0, dtype=np.uint8)
    return decode_image(data, str(path))


def _folder_images(folder: Path, argument: str) -> tuple[list[Path], Path]:
    """All images below a folder, or the one image that was named."""
    if folder.is_file():
        return [folder], folder.parent
    if not folder.is_dir():
        msg = f"There is no image folder {folder}. Check the path given as `{argument}`."
        raise FileNotFoundError(msg)
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        msg = f"The folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})."
        raise FileNotFoundError(msg)
    return paths, folder


def _datamodule_images(datamodule: AnomalibDataModule) -> tuple[list[Path], Path]:
    """Test images of an anomalib datamodule and the folder that all of them share."""
    datamodule.setup()
    paths = [Path(path) for path in datamodule.test_data.samples["image_path"]]
    if not paths:
        msg = f"The test set of {type(datamodule).__name__} is empty; check its root and its split modes."
        raise FileNotFoundError(msg)
    return paths, _shared_folder(paths)


def _shared_folder(paths: Sequence[Path]) -> Path:
    """The folder above those that hold the images."""
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return root.parent if all(path.parent == root for path in paths) else root


def _unique_records(paths: Iterable[Path], root: Path) -> list[ImageRecord]:
    """Records sorted by key; two files with one key can't be told apart and are refused."""
    records: dict[str, ImageRecord] = {}
    for path in sorted(paths):
        record = ImageRecord(path=path, key=key_of(path.relative_to(root)))
        if record.key in records:
            msg = f"Two images have the name {record.key!r}: {records[record.key].path} and {path}. Rename one."
            raise ValueError(msg)
        records[record.key] = record
    return [records[key] for key in sorted(records)]


def _narrow(records: Sequence[ImageRecord], list_file: Path, root: Path) -> list[ImageRecord]:
    """Keep what the list names; a name without an image is an error."""
    keys = {key_of(line) for line in read_relative_paths(list_file)}
    missing = sorted(keys - {record.key for record in records})
    if missing:
        msg = f"{list_file} names {len(missing)} images that {root} lacks, such as {missing[:3]}."
        raise FileNotFoundError(msg)
    if not keys:
        msg = f"The list {list_file} is empty; it should name one image a line, relative to {root}."
        raise ValueError(msg)
    return [record for record in records if record.key in keys]
