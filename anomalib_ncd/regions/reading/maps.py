# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps: from a file to an array, and from an image to its map."""

import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from anomalib_ncd.regions.reading.images import decode_samples
from anomalib_ncd.regions.reading.listing import LIMITS, ImageFile, ImageLimits, find_files, printable, read_bytes

MAP_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".npy", ".npz"})
MAP_KINDS = ("uint8", "uint16", "float")
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"

logger = logging.getLogger(__name__)

_ENDING = "_anomaly_map"


def read_anomaly_map(path: str | os.PathLike[str], limits: ImageLimits = LIMITS) -> np.ndarray:
    """Read an anomaly map: 8- or 16-bit PNG, TIFF (float as well), NPY, or NPZ with one array, whatever its suffix.

    An array may carry axes of length one before or behind, as anomalib's maps do. ``(H, W)`` becomes ``uint8`` or
    ``uint16`` as the file holds it, any other integers ``float64``, floats ``float32`` or ``float64``. ``ValueError``
    if it can't be read, isn't a single map, or holds NaN or infinite values.
    """
    name = f"Anomaly map {path}"
    data = read_bytes(path, "Anomaly map", limits)
    if data.startswith((_NPY, _ZIP)):
        anomaly_map = _array(data, name, limits)
    else:
        anomaly_map = _one_channel(decode_samples(data, name, limits), name)
    if anomaly_map.ndim != 2 or anomaly_map.dtype.kind not in "uif":
        msg = f"{name} must be a numeric (H, W) array, got {anomaly_map.dtype} {anomaly_map.shape}."
        raise ValueError(msg)
    if anomaly_map.dtype == np.float16:
        anomaly_map = anomaly_map.astype(np.float32)
    elif anomaly_map.dtype not in (np.uint8, np.uint16, np.float32):
        anomaly_map = anomaly_map.astype(np.float64)
    if anomaly_map.size == 0 or not np.isfinite(anomaly_map).all():
        msg = f"{name} is empty or holds NaN or infinite values; check the detector that made it."
        raise ValueError(msg)
    return anomaly_map


def map_kind(anomaly_map: np.ndarray) -> str:
    """What the values of a map are: ``"uint8"``, ``"uint16"`` or ``"float"``; maps of one set are of one kind."""
    return "float" if anomaly_map.dtype.kind == "f" else anomaly_map.dtype.name


def _array(data: bytes, name: str, limits: ImageLimits) -> np.ndarray:
    """The one array of an NPY or NPZ file; no code in it is run."""
    try:
        found = np.load(BytesIO(data), allow_pickle=False)
        if not isinstance(found, np.ndarray):
            found = _member(found, limits)
    except Exception as error:
        msg = f"{name} is cut off, damaged or no single map ({error}). Write it again as an NPY file."
        raise ValueError(msg) from error
    if found.size > limits.max_pixels:
        msg = f"{name} has {found.size:,} values, more than the limit of {limits.max_pixels:,}; scale it down."
        raise ValueError(msg)
    while found.ndim > 2 and 1 in (found.shape[0], found.shape[-1]):
        found = found[0] if found.shape[0] == 1 else found[..., 0]
    return found


def _member(archive: np.lib.npyio.NpzFile, limits: ImageLimits) -> np.ndarray:
    """The array of an archive, which is not unpacked if it is too large."""
    if len(archive.files) != 1:
        msg = f"it holds the arrays {archive.files[:5]}, but one is expected"
        raise ValueError(msg)
    num_bytes = sum(entry.file_size for entry in archive.zip.infolist()) if archive.zip is not None else 0
    if num_bytes > 8 * limits.max_pixels + 10_000:
        msg = f"it unpacks to {num_bytes:,} bytes"
        raise ValueError(msg)
    return archive[archive.files[0]]


def _one_channel(samples: np.ndarray, name: str) -> np.ndarray:
    """Accept grey pictures saved with equal channels; refuse colour, which has lost the scores."""
    if samples.ndim == 2:
        return samples
    if not (samples == samples[..., :1]).all():
        msg = f"{name} is a colour picture; save the scores themselves (grey PNG, float TIFF, NPY)."
        raise ValueError(msg)
    return np.ascontiguousarray(samples[..., 0])


class MapPairs:
    """Maps of a folder, by the images that they belong to.

    An image ``scratch/000.jpg`` belongs to the map ``scratch/000`` or ``scratch/000_anomaly_map`` with any of the map
    suffixes. In a folder without subfolders the stem alone decides, as long as no two images share it. A key that comes
    twice stands for two images.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            msg = f"There is no folder of anomaly maps {folder}. Check the path given as `anomaly_maps`."
            raise FileNotFoundError(msg)
        self.refresh(())

    def refresh(self, image_keys: Iterable[str]) -> None:
        """Look at the folder anew, with the keys of all images that are there now."""
        self._maps: dict[str, list[Path]] = defaultdict(list)
        for path in find_files(self.folder, MAP_SUFFIXES):
            key = printable(path.relative_to(self.folder).with_suffix("").as_posix())
            self._maps[unicodedata.normalize("NFC", key).removesuffix(_ENDING)].append(path)
        self._by_stem = all("/" not in key for key in self._maps)
        self._claims = Counter(self._name_of(key) for key in image_keys)

    def find(self, key: str) -> Path | None:
        """Find the map of an image by its key; ``None`` where there is none (yet), an error where it isn't clear."""
        name = self._name_of(key)
        found = self._maps.get(name, [])
        if len(found) > 1:
            msg = f"Two anomaly maps have the name {name!r}: {found[0]} and {found[1]}. Remove one."
            raise ValueError(msg)
        if found and self._claims[name] > 1:
            msg = (
                f"Several images are called {name!r}, and nothing in {self.folder} tells their maps apart; "
                "give the maps the images' folders and different names."
            )
            raise ValueError(msg)
        return found[0] if found else None

    def pair(self, images: Sequence[ImageFile]) -> list[Path]:
        """Find the map of each image, in order. Maps without an image are left out, with a warning.

        ``FileNotFoundError`` if an image has no map, ``ValueError`` if several maps or several images may be meant.
        """
        self.refresh(image.key for image in images)
        suffixes = ", ".join(sorted(MAP_SUFFIXES))
        if not self._maps:
            msg = f"The folder {self.folder} holds no anomaly maps ({suffixes})."
            raise FileNotFoundError(msg)
        found = [(image, self.find(image.key)) for image in images]
        missing = [str(image.path) for image, path in found if path is None]
        if missing:
            msg = (
                f"{len(missing)} of {len(images)} images have no anomaly map in {self.folder}, such as {missing[:3]}. "
                f"A map is looked for at the image's relative path with one of the suffixes {suffixes}."
            )
            raise FileNotFoundError(msg)
        unused = sorted(set(self._maps) - set(self._claims))
        if unused:
            logger.warning("%d anomaly maps in %s have no image: %s …", len(unused), self.folder, unused[:3])
        return [path for _, path in found if path is not None]

    def _name_of(self, key: str) -> str:
        """What the map of an image is called, without suffix."""
        return Path(key).name if self._by_stem else key
