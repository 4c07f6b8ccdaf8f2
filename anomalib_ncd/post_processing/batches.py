# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's image batches with what MEBin finds besides the mask."""

from dataclasses import dataclass
from typing import ClassVar, cast

import cv2
import numpy as np
import torch
from anomalib.data import Batch, ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from PIL import Image


@dataclass
class MEBinNumpyItem(NumpyImageItem):
    """``MEBinItem`` as arrays."""

    threshold: np.ndarray | None = None
    num_anomalies: np.ndarray | None = None


@dataclass
class MEBinNumpyBatch(NumpyImageBatch):
    """``MEBinBatch`` as arrays."""

    item_class: ClassVar[type[NumpyImageItem]] = MEBinNumpyItem
    threshold: np.ndarray | None = None
    num_anomalies: np.ndarray | None = None


@dataclass
class MEBinItem(ImageItem):
    """anomalib's ``ImageItem`` with the results of MEBin."""

    numpy_class: ClassVar[type[NumpyImageItem]] = MEBinNumpyItem
    # Scalar float64, on the scale of the detector's own anomaly map, before its normalisation
    threshold: torch.Tensor | None = None
    num_anomalies: torch.Tensor | None = None  # scalar int64, estimated number of anomalies


@dataclass
class MEBinBatch(ImageBatch):
    """anomalib's ``ImageBatch`` with the results of MEBin, as ``Engine.predict`` returns it."""

    item_class: ClassVar[type[ImageItem]] = MEBinItem
    numpy_class: ClassVar[type[NumpyImageBatch]] = MEBinNumpyBatch
    # (B,) float64, on the scale of the detector's own anomaly map, before its normalisation
    threshold: torch.Tensor | None = None
    num_anomalies: torch.Tensor | None = None  # (B,) int64, estimated number of anomalies


def add_mebin_results(
    batch: Batch, pred_mask: torch.Tensor, threshold: torch.Tensor, num_anomalies: torch.Tensor
) -> None:
    """Put MEBin's results into a batch of predictions, in place.

    A plain ``ImageBatch`` becomes a :class:`MEBinBatch`. Batches of other kinds get the attributes only: there, items
    and ``to_numpy()`` don't carry them.
    """
    if type(batch) is ImageBatch:
        # Lightning goes on with the object that the model returned, whatever a callback makes of it; so this object
        # must take the new fields. The class only adds optional ones.
        batch.__class__ = MEBinBatch
    extended = cast("MEBinBatch", batch)
    extended.pred_mask = pred_mask
    extended.threshold = threshold
    extended.num_anomalies = num_anomalies


def masks_at_file_size(batch: ImageBatch | ImageItem) -> list[np.ndarray]:
    """Resize predicted masks to the size ``(H, W)`` of the image files, nearest neighbour.

    In anomalib the images of a batch have the detector's input size, and so have its masks; the files may have a size
    each. Detectors that crop their input see a part of the image only: their masks can't be laid over the file.
    ``ValueError`` if the predictions have no masks or no paths.
    """
    if batch.pred_mask is None or batch.image_path is None:
        msg = "`batch` must have `pred_mask` and `image_path`, got None; pass what `Engine.predict` returned."
        raise ValueError(msg)
    paths = [batch.image_path] if isinstance(batch.image_path, str) else batch.image_path
    masks = batch.pred_mask.cpu().numpy().astype(np.uint8).reshape(len(paths), *batch.pred_mask.shape[-2:])
    return [_resized(mask, path) for mask, path in zip(masks, paths, strict=True)]


def _resized(mask: np.ndarray, path: str) -> np.ndarray:
    """Resize a mask to its image file, of which only the header is read."""
    with Image.open(path) as image:
        return cv2.resize(mask, image.size, interpolation=cv2.INTER_NEAREST).astype(bool)
