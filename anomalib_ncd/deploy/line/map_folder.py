# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps that another tool saves beside the images, in the place of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anomalib_ncd.deploy.image_files import ImageInput

MAP_SUFFIXES = (".npy", ".tiff", ".tif", ".png")


class MapFolder:
    """Reads the map of each image at its relative path, or at its stem in a folder without subfolders.

    Args:
        folder: Folder of maps: 8- or 16-bit PNG, float TIFF, NPY.
        images: Folder that image paths are relative to.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    def __init__(self, folder: str | Path, images: str | Path) -> None:
        self.folder, self.images = Path(folder), Path(images)
        if not self.folder.is_dir():
            msg = f"There is no folder of anomaly maps {folder}. Check the path given as `anomaly_maps`."
            raise FileNotFoundError(msg)

    def find(self, image: Path) -> Path | None:
        """Find the map of an image; ``None`` where it is not there (yet)."""
        relative = image.relative_to(self.images) if image.is_relative_to(self.images) else Path(image.name)
        for place in (self.folder / relative, self.folder / relative.name):
            for suffix in MAP_SUFFIXES:
                file = place.with_suffix(suffix)
                if file.is_file():
                    return file
        return None

    def detect(self, images: Sequence[ImageInput]) -> list[np.ndarray]:
        """Read the maps of images.

        Raises:
            ValueError: If an image has no path or its map can't be used.
            FileNotFoundError: If an image has no map.
        """
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: ImageInput) -> np.ndarray:
        """Read the map of an image."""
        from anomalib_ncd.data.anomaly_maps import read_anomaly_map  # noqa: PLC0415 - it imports anomalib

        if image.path is None:
            msg = "A folder of maps needs images with a path; give files instead of arrays."
            raise ValueError(msg)
        file = self.find(image.path)
        if file is None:
            msg = f"{image.path} has no anomaly map in {self.folder}, neither at its relative path nor at its stem."
            raise FileNotFoundError(msg)
        return read_anomaly_map(file)
