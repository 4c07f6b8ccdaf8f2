# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps that another tool saves for the images, in place of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files, key_of
from anomalib_ncd.regions.reading.maps import map_kind, read_anomaly_map
from anomalib_ncd.regions.reading.pairing import MapPairs


class MapFolder:
    """Reads the map of each image, paired as ``discover`` pairs them: of a folder of all images, or of one image."""

    def __init__(self, folder: str | Path, images: str | Path) -> None:
        self._images = Path(images)
        self._root = self._images.parent if self._images.is_file() else self._images
        self._maps = MapPairs(folder)
        self._first: tuple[str, str] | None = None
        self.refresh()

    def expect(self, kind: str | None) -> None:
        """Refuse maps of another kind than those of the run, where that is known."""
        self._first = None if kind is None else (kind, "the run's")

    def refresh(self) -> None:
        """Look at both folders anew; maps that came meanwhile are found afterwards."""
        self._maps.refresh(self._key_of(path) for path in find_files(self._images, IMAGE_SUFFIXES))

    def find(self, image: Path) -> Path | None:
        """Find the map of an image; ``None`` where it is not there (yet). An error where several may be meant."""
        return self._maps.find(self._key_of(image))

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """Read the maps of images; an error where one has none, or one of another kind than those before."""
        return [self._read(path) for _, path in zip_longest(images, paths)]

    def _read(self, image: Path | None) -> np.ndarray:
        """Read the map of an image."""
        if image is None:
            msg = "A folder of maps needs images with a path; give files instead of arrays."
            raise ValueError(msg)
        file = self.find(image)
        if file is None:
            msg = f"{image} has no anomaly map in {self._maps.folder}, where it is looked for by relative path."
            raise FileNotFoundError(msg)
        anomaly_map = read_anomaly_map(file)
        kind, first = self._first = self._first or (map_kind(anomaly_map), str(file))
        if map_kind(anomaly_map) != kind:
            msg = f"Anomaly map {file} holds {map_kind(anomaly_map)}, but {first} {kind}. Save them alike."
            raise ValueError(msg)
        return anomaly_map

    def _key_of(self, image: Path) -> str:
        """Key of an image."""
        return key_of(image.relative_to(self._root) if image.is_relative_to(self._root) else image.name)
