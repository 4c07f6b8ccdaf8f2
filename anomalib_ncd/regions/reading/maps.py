# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From a file to an anomaly map."""

from __future__ import annotations

import os
from io import BytesIO

import numpy as np

from anomalib_ncd.regions.reading.file_bytes import LIMITS, ImageLimits, read_bytes
from anomalib_ncd.regions.reading.images import decode_samples

MAP_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".npy", ".npz"})
MAP_KINDS = ("uint8", "uint16", "float")
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"


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
