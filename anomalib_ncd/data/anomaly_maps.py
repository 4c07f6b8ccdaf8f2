# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly maps on disk: reading them, and pairing them with images."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from anomalib_ncd.data.images import ImageRecord, key_of

logger = logging.getLogger(__name__)

MAP_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".npy"})


def read_anomaly_map(path: str | Path) -> np.ndarray:
    """Read an anomaly map: 8- or 16-bit PNG, float TIFF, or NPY.

    Args:
        path: File of the map. An NPY may carry leading axes of length one, as anomalib's maps do.

    Returns:
        Map of shape ``(H, W)`` in the file's own dtype (``uint8``, ``uint16``, ``float32`` or ``float64``).

    Raises:
        ValueError: If the file can't be read, isn't a single map, or holds NaN or infinite values.
    """
    path = Path(path)
    anomaly_map = _read_npy(path) if path.suffix.lower() == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if anomaly_map is None:
        msg = f"Cannot read anomaly map {path}: it is missing, empty or damaged. Compute it again."
        raise ValueError(msg)
    anomaly_map = _one_channel(anomaly_map, path)
    if anomaly_map.size == 0 or not np.isfinite(anomaly_map).all():
        msg = f"Anomaly map {path} is empty or holds NaN or infinite values; check the detector that made it."
        raise ValueError(msg)
    return anomaly_map


def pair_anomaly_maps(images: Sequence[ImageRecord], folder: str | Path) -> list[Path]:
    """Find the map of each image by relative path and stem, never by order.

    An image ``scratch/000.jpg`` belongs to the map ``scratch/000`` with any of the map suffixes. In a folder without
    subfolders the stem alone decides, as long as no two images share it.

    Args:
        images: Images to find maps for.
        folder: Folder of maps.

    Returns:
        One map file per image, in the order of ``images``. Maps without an image are left out, with a warning.

    Raises:
        FileNotFoundError: If the folder is missing or empty, or an image has no map.
        ValueError: If two maps have the same name.
    """
    folder = Path(folder)
    maps = _maps_by_key(folder)
    by_stem = all("/" not in key for key in maps)
    names = [Path(image.key).name if by_stem else image.key for image in images]
    if by_stem and len(set(names)) < len(names):
        twin = next(name for name in names if names.count(name) > 1)
        msg = f"Several images are called {twin!r}, but {folder} has no subfolders to tell their maps apart."
        raise ValueError(msg)
    missing = [str(image.path) for image, name in zip(images, names, strict=True) if name not in maps]
    if missing:
        msg = (
            f"{len(missing)} of {len(images)} images have no anomaly map in {folder}, such as {missing[:3]}. "
            "A map is looked for at the image's relative path with the suffix .png, .tif, .tiff or .npy."
        )
        raise FileNotFoundError(msg)
    unused = sorted(set(maps) - set(names))
    if unused:
        logger.warning("%d anomaly maps in %s have no image and are left out: %s …", len(unused), folder, unused[:3])
    return [maps[name] for name in names]


def _maps_by_key(folder: Path) -> dict[str, Path]:
    """All maps below a folder by relative path without suffix."""
    if not folder.is_dir():
        msg = f"There is no folder of anomaly maps {folder}. Check the path given as `anomaly_maps`."
        raise FileNotFoundError(msg)
    found = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in MAP_SUFFIXES and path.is_file():
            found[key_of(path.relative_to(folder))].append(path)
    if not found:
        msg = f"The folder {folder} holds no anomaly maps ({', '.join(sorted(MAP_SUFFIXES))})."
        raise FileNotFoundError(msg)
    for key, paths in found.items():
        if len(paths) > 1:
            msg = f"Two anomaly maps have the name {key!r}: {paths[0]} and {paths[1]}. Remove one."
            raise ValueError(msg)
    return {key: paths[0] for key, paths in found.items()}


def _read_npy(path: Path) -> np.ndarray | None:
    """Load an NPY map without running code from it; ``None`` where it can't be read."""
    try:
        anomaly_map = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if anomaly_map.dtype == np.float16:
        anomaly_map = anomaly_map.astype(np.float32)
    while anomaly_map.ndim > 2 and anomaly_map.shape[0] == 1:
        anomaly_map = anomaly_map[0]
    return anomaly_map


def _one_channel(anomaly_map: np.ndarray, path: Path) -> np.ndarray:
    """Accept grey pictures saved with equal channels; refuse colour, which has lost the scores."""
    if anomaly_map.ndim == 3 and path.suffix.lower() != ".npy":
        channels = anomaly_map[..., :3]
        if not (channels == channels[..., :1]).all():
            msg = f"Anomaly map {path} is a colour picture; save the scores themselves (grey PNG, float TIFF, NPY)."
            raise ValueError(msg)
        anomaly_map = np.ascontiguousarray(channels[..., 0])
    if anomaly_map.ndim != 2 or anomaly_map.dtype.kind not in "uf":
        msg = f"Anomaly map {path} must be a numeric (H, W) array, got {anomaly_map.dtype} {anomaly_map.shape}."
        raise ValueError(msg)
    return anomaly_map
