# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The regions of all images: cut once, kept in memory or on disk, taken up again where a run was interrupted."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from anomalib_ncd.regions.crops import Region
from anomalib_ncd.regions.cutting import UnitCheck, cut_regions
from anomalib_ncd.regions.reading.images import decode_samples, read_image
from anomalib_ncd.regions.reading.listing import ImageFile, read_bytes, stamp_of
from anomalib_ncd.regions.reading.maps import map_kind, read_anomaly_map
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.writing import Journal, write_image

logger = logging.getLogger(__name__)

JOURNAL = "regions.jsonl"
MAX_NAME_BYTES = 200  # of an image that its crops are called by; file systems take 255


class RegionTable:
    """Regions of a list of images.

    Crops and the list of regions lie in a folder, where an interrupted build goes on from what is there, or in memory.
    """

    def __init__(self, images: Sequence[ImageFile], folder: str | Path | None = None) -> None:
        self.images = list(images)
        self.folder = None if folder is None else Path(folder)
        self.settings = RegionSettings()  # how the regions were cut
        self.score_range = (0.0, 1.0)  # of the maps that they were cut from
        self.map_kind: str | None = None  # what the maps hold
        self.rows: list[Region] = []  # of all images, without their pixels
        self.image_of: list[int] = []  # that each region lies in
        self.sizes_hw: list[tuple[int, int]] = []  # of each image
        self.num_components: list[int] = []  # anomalies that MEBin estimates in each image
        self.peaks_xy: list[tuple[float, float]] = []  # where the map of each image is highest, in image pixels
        self.rows_of_image: list[list[int]] = []  # indices of the regions of each image; there may be none
        self._crops: list[tuple[np.ndarray, np.ndarray]] = []
        # Digest of what the regions were cut from and how: images, maps, score range and settings.
        self.fingerprint = ""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def empty_images(self) -> list[int]:
        """Indices of the images in which nothing was found: no region has a mask."""
        return [i for i, rows in enumerate(self.rows_of_image) if not any(self.rows[row].area for row in rows)]

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels ``(h, w, 3)`` uint8 and mask ``(h, w)`` bool of a region."""
        if self.folder is None:
            return self._crops[index]
        image_index = self.image_of[index]
        key, number = self.images[image_index].key, index - self.rows_of_image[image_index][0]
        try:
            image, mask = (
                decode_samples(read_bytes(file, "Crop"), f"Crop {file}")
                for file in (self._crop_file(kind, key, number) for kind in ("images", "masks"))
            )
        except (OSError, ValueError) as error:
            msg = f"Region {number} of {key} is gone from {self.folder}; delete the folder and run again."
            raise ValueError(msg) from error
        return image, mask > 0

    def build(
        self,
        map_paths: Sequence[Path],
        score_range: tuple[float, float],
        settings: RegionSettings,
        kind: str | None = None,
    ) -> RegionTable:
        """Find and cut the regions of all images, and return the table.

        ``score_range`` is that of the set of maps, see :func:`~anomalib_ncd.regions.cutting.fit_range`; ``kind`` what
        the maps of a fitted model's run hold, ``None`` for maps of any one kind. ``ValueError`` if an image or a map
        can't be used, or the maps are of two kinds.
        """
        self.settings, self.score_range = settings, score_range
        how = json.dumps({"score_range": [float(edge) for edge in score_range], **settings.to_dict()}, indent=2)
        self._note(how)
        journal = None if self.folder is None else Journal(self.folder / JOURNAL, how)
        done = {} if journal is None else journal.entries
        pairs = list(zip(self.images, map_paths, strict=True))
        progress = tqdm(pairs, desc="Cutting regions", unit="image", disable=len(done) >= len(pairs))
        first_of_kind: dict[str, Path | str] = {} if kind is None else {kind: "the run of the model"}
        check_units = UnitCheck(score_range, settings) if kind is not None else None
        highest, squashed = 0, 0
        for image, map_path in progress:
            stamp = [*stamp_of(image.path), *stamp_of(map_path)]
            entry = done.get(image.key)
            if entry is None or entry["stamp"] != stamp:
                entry = self._cut(image, map_path, score_range, check_units) | {"stamp": stamp}
                if journal is not None:
                    journal.add(entry)
            first_of_kind.setdefault(entry["map_kind"], map_path)
            _check_kinds(first_of_kind)
            highest = max(highest, entry["highest_value"])
            (rows, columns), (height, width) = entry["map_hw"], entry["size_hw"]
            # Most detectors take squares, whatever the image.
            squashed += rows != columns and not 0.9 < rows * width / (columns * height) < 1.1
            self._append(entry)
        if self.images and settings.bit_depth == 16:
            _warn_if_dark(highest)
        if squashed:
            logger.warning("%d anomaly maps have other proportions than their images; do they show them?", squashed)
        return self

    @classmethod
    def read(cls, images: Sequence[ImageFile], folder: str | Path) -> RegionTable:
        """Read the finished table of a folder, without maps; crops are read when they are asked for."""
        table = cls(images, folder)
        journal = Journal(Path(folder) / JOURNAL)
        if journal.made_from:
            saved = json.loads(journal.made_from)
            low, high = saved.pop("score_range")
            table.settings, table.score_range = RegionSettings.from_dict(saved), (low, high)
        for image in table.images:
            if image.key not in journal.entries:
                msg = f"{folder} lacks the regions of {image.key!r}; run `anomalib-ncd discover` again."
                raise FileNotFoundError(msg)
            table._append(journal.entries[image.key])
        return table

    def adopt(self, other: RegionTable, images: Sequence[ImageFile], keys: Sequence[str]) -> None:
        """Copy images of another kept table, under ``keys``, into this folder, for :meth:`read`; this table stays."""
        found, there = (Journal(table._existing_folder() / JOURNAL) for table in (other, self))
        for image, key in zip(images, keys, strict=True):
            entry = {**found.entries[image.key], "image": key}
            if there.entries.get(key) == entry:
                continue
            for kind, number in itertools.product(("images", "masks"), range(len(entry["regions"]))):
                target = self._crop_file(kind, key, number)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(other._crop_file(kind, image.key, number), target)
            there.add(entry)

    def _cut(
        self, image: ImageFile, map_path: Path, score_range: tuple[float, float], check_units: UnitCheck | None
    ) -> dict[str, Any]:
        """Cut the regions of one image and describe them as plain data."""
        pixels, anomaly_map = read_image(image.path, self.settings.bit_depth), read_anomaly_map(map_path)
        if check_units is not None:
            check_units(anomaly_map, image.path)
        try:
            binarized, regions = cut_regions(pixels, anomaly_map, score_range, self.settings)
        except ValueError as error:
            msg = f"The anomaly map {map_path} of {image.path} can't be used: {error}"
            raise ValueError(msg) from error
        (height, width), (rows, columns) = pixels.shape[:2], anomaly_map.shape
        row, column = divmod(int(anomaly_map.argmax()), columns)
        peak_xy = [(column + 0.5) * width / columns, (row + 0.5) * height / rows]
        for number, region in enumerate(regions):
            if self.folder is None:
                self._crops.append((region.image, region.mask))
            else:
                write_image(self._crop_file("images", image.key, number), region.image, sync=False)
                write_image(self._crop_file("masks", image.key, number), region.mask, sync=False)
        return {
            "image": image.key,
            "size_hw": list(pixels.shape[:2]),
            "highest_value": int(pixels.max()),
            "map_kind": map_kind(anomaly_map),
            "map_hw": list(anomaly_map.shape),
            "threshold": binarized.threshold,
            "num_components": binarized.num_components,
            "peak_xy": peak_xy,
            "regions": [{"box_xyxy": r.box_xyxy, "score": r.score, "area": r.area} for r in regions],
        }

    def _append(self, entry: dict[str, Any]) -> None:
        self._note(json.dumps(entry))
        self.map_kind = entry["map_kind"]
        height, width = entry["size_hw"]
        self.sizes_hw.append((height, width))
        self.num_components.append(entry["num_components"])
        self.peaks_xy.append((entry["peak_xy"][0], entry["peak_xy"][1]))
        self.rows_of_image.append(list(range(len(self.rows), len(self.rows) + len(entry["regions"]))))
        self.image_of += [len(self.sizes_hw) - 1] * len(entry["regions"])
        for region in entry["regions"]:
            left, top, right, bottom = region["box_xyxy"]
            self.rows.append(Region((left, top, right, bottom), region["score"], region["area"]))

    def _note(self, text: str) -> None:
        self.fingerprint = hashlib.sha256(f"{self.fingerprint} {text}".encode()).hexdigest()

    def _crop_file(self, kind: str, key: str, number: int) -> Path:
        """File of a crop or of its mask; a long name gives way to a shorter one of its own."""
        folder, name = PurePosixPath(key).parent, PurePosixPath(key).name
        if len(name.encode()) > MAX_NAME_BYTES:
            name = f"{name[:40]}_{hashlib.sha256(name.encode()).hexdigest()[:24]}"
        return self._existing_folder() / kind / folder / f"{name}_region{number}.png"

    def _existing_folder(self) -> Path:
        if self.folder is None:
            msg = "The table is kept in memory."
            raise RuntimeError(msg)
        return self.folder


def _check_kinds(first_of_kind: dict[str, Path | str]) -> None:
    """Refuse maps whose scores mean different things: those of 0 to 255 and of 0 to 1, say."""
    if len(first_of_kind) > 1:
        (one, one_file), (other, other_file) = first_of_kind.items()
        msg = f"Anomaly maps are of two kinds: {one_file} holds {one}, {other_file} {other}. Save all of them alike."
        raise ValueError(msg)


def _warn_if_dark(highest: int) -> None:
    """Say that images may be of another bit depth than they are read with."""
    bits = next((bits for bits in (10, 12, 14) if highest <= round((2**bits - 1) / 257)), None)
    if bits is not None:
        text = (
            "No image has a value above %d of 255. If they are 16-bit files of a camera with %d bits (values up to "
            "%s), give `--regions.bit_depth %d`."
        )
        logger.warning(text, highest, bits, f"{2**bits - 1:,}", bits)
