# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""MEBin for maps of an exported detector, in whose graph nothing can sweep thresholds and count components.

A detector exported with ``MEBin`` yields its own anomaly maps, as MEBin needs them: not normalised, not clipped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from anomalib_ncd.regions.mebin import BinarizedMap, binarize, binarize_batch, fit_score_range
from anomalib_ncd.regions.writing import write_file

REFERENCE_SIZE_PX = 256


@dataclass(frozen=True)
class MEBinSettings:
    """All that MEBin needs besides the map; for the meaning see :class:`~anomalib_ncd.MEBin`.

    Where ``score_range`` was never fitted it is ``None``: each map's own range then.
    """

    score_range: tuple[float, float] | None = None
    sample_rate: int = 4
    min_interval_len: int = 4
    erosion_size: int = 6
    scale_erosion: bool = False

    def erosion_size_for(self, size_hw: tuple[int, int]) -> int:
        """Side of the erosion for a map: scaled by its longer side if asked, and then 1 pixel at least."""
        if not self.scale_erosion or self.erosion_size == 0:
            return self.erosion_size
        return max(1, round(self.erosion_size * max(size_hw) / REFERENCE_SIZE_PX))

    def save(self, path: str | Path) -> None:
        """Write the settings as JSON."""
        write_file(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> MEBinSettings:
        """Read settings that were saved."""
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if values["score_range"] is not None:
            values["score_range"] = tuple(values["score_range"])
        return cls(**values)


def mebin_from_exported(
    anomaly_map: np.ndarray | torch.Tensor,
    settings: MEBinSettings | str | Path,
    image_size_hw: tuple[int, int] | None = None,
) -> list[BinarizedMap]:
    """Binarise the anomaly maps that a detector exported with ``MEBin`` to ONNX or OpenVINO yields.

    Returns mask, threshold and number of anomalies of each map, as ``MEBin`` gives; ``ValueError`` for bad maps.

    Args:
        anomaly_map: Output ``anomaly_map`` of the exported model, ``(H, W)``, ``(B, H, W)`` or ``(B, 1, H, W)``.
        settings: The post-processor's ``settings``, or the file that they were saved to.
        image_size_hw: Size to resize the masks to, nearest neighbour. Defaults to ``None``, the map's.

    Example:
        >>> maps = np.zeros((2, 1, 16, 16), dtype=np.float32)
        >>> maps[0, 0, 2:10, 2:10] = 1
        >>> results = mebin_from_exported(maps, MEBinSettings(score_range=(0, 1)))
        >>> [(int(result.mask.sum()), result.num_components) for result in results]
        [(9, 1), (0, 0)]
    """
    if not isinstance(settings, MEBinSettings):
        settings = MEBinSettings.load(settings)
    maps = _as_batch(anomaly_map)
    options = (settings.sample_rate, settings.min_interval_len, settings.erosion_size_for(maps.shape[-2:]))
    if settings.score_range is None:
        results = [binarize(one, fit_score_range([one]), *options) for one in maps]
    else:
        results = binarize_batch(maps, settings.score_range, *options)
    if image_size_hw is None or tuple(image_size_hw) == maps.shape[-2:]:
        return results
    return [result._replace(mask=_resized(result.mask, image_size_hw)) for result in results]


def _as_batch(anomaly_map: np.ndarray | torch.Tensor) -> np.ndarray:
    """Bring maps to the host, once for the batch, as ``(B, H, W)``."""
    if isinstance(anomaly_map, torch.Tensor):
        tensor = anomaly_map.detach().as_subclass(torch.Tensor)
        # NumPy has no bfloat16.
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        anomaly_map = tensor.cpu().numpy()
    shape = anomaly_map.shape
    if len(shape) not in {2, 3, 4} or (len(shape) == 4 and shape[1] != 1):
        msg = f"`anomaly_map` must have shape (H, W), (B, H, W) or (B, 1, H, W), got {shape}; pass one map an image."
        raise ValueError(msg)
    num_maps = 1 if len(shape) == 2 else shape[0]
    return anomaly_map.reshape(num_maps, *shape[-2:])


def _resized(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize a mask, nearest neighbour."""
    height, width = size_hw
    return cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).view(bool)
