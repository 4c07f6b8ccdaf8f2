# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""MEBin, the post-processor that gives any anomalib detector a threshold of its own for each image."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import cv2
import numpy as np
import torch
from anomalib.data import Batch, ImageBatch, ImageItem, InferenceBatch, NumpyImageBatch, NumpyImageItem
from anomalib.post_processing import PostProcessor
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from anomalib_ncd.post_processing.exported import MEBinSettings, mebin_from_exported
from anomalib_ncd.post_processing.score_range import MapExtremes, first_pass, range_of_extremes
from anomalib_ncd.regions.mebin import binarize

logger = logging.getLogger(__name__)

ScoreRange = tuple[float, float] | Literal["validation", "predict"]


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


class MEBinMasks(NamedTuple):
    """Masks (bool, shape and device of the maps), thresholds ``(B,)`` float64 and numbers ``(B,)`` int64 on the CPU."""

    pred_mask: torch.Tensor
    threshold: torch.Tensor
    num_anomalies: torch.Tensor


class MEBin(PostProcessor):
    """Post-processor that binarises each anomaly map at the threshold where its main elements are stable.

    Scores, their normalisation, the image threshold and the labels are those of anomalib's ``PostProcessor``; only
    ``pred_mask`` is MEBin's, and each batch gets ``threshold`` and ``num_anomalies`` with it, see ``MEBinBatch``. The
    detector's own maps are binarised, before the normalisation clips them. Paper: "AnomalyNCD" (Huang et al., CVPR
    2025, arXiv 2410.14379), section on Main Element Binarization.

    MEBin needs the score range of a set of maps: their lowest and highest peak. Once it is known, the mask of an image
    depends on that image alone. ``ValueError`` if a setting is out of range.

    Args:
        score_range: ``"validation"`` fits the range on the validation set. ``"predict"`` fits it on the set that is
            predicted or tested, as the paper does: that set is run twice. Two numbers set it by hand, in the units of
            the detector's own anomaly maps.
        robust_range: Whether maps with peaks more than five times as high as all others are left out when the range is
            fitted; not so in the paper.
        sample_rate: Step between thresholds, on the scale from 0 to 255. 4 in the paper.
        min_interval_len: Shortest run of equal counts that is stable. 4 in the paper.
        erosion_size: Side in pixels of the square that masks are eroded with; 0 for none. 6 in the paper.
        scale_erosion: Whether ``erosion_size`` is meant for maps of 256 pixels and scales with the map's longer side.
        mask_size: ``"map"`` for masks of the map's size, ``"image"`` for that of the images in the batch, where there
            are any. For the size of the image files see ``masks_at_file_size``.
        enable_normalization: Whether to normalise scores and maps.
        enable_thresholding: Whether to make labels and masks.
        enable_threshold_matching: Whether to use the pixel threshold for images where there is no image threshold.
        image_sensitivity: Sensitivity of the labels, 0 to 1.
        pixel_sensitivity: Has no effect on MEBin's masks; kept for anomalib's sake.

    Example:
        >>> from anomalib.data import InferenceBatch
        >>> maps = torch.zeros(1, 16, 16)
        >>> maps[0, 2:10, 2:10] = 1
        >>> post_processor = MEBin(score_range=(0, 1))
        >>> predictions = post_processor(InferenceBatch(pred_score=torch.ones(1), anomaly_map=maps))
        >>> int(predictions.pred_mask.sum())
        9
    """

    mebin_score_range: torch.Tensor

    def __init__(
        self,
        score_range: ScoreRange = "validation",
        robust_range: bool = False,
        sample_rate: int = 4,
        min_interval_len: int = 4,
        erosion_size: int = 6,
        scale_erosion: bool = False,
        mask_size: Literal["map", "image"] = "map",
        enable_normalization: bool = True,
        enable_thresholding: bool = True,
        enable_threshold_matching: bool = True,
        image_sensitivity: float = 0.5,
        pixel_sensitivity: float = 0.5,
    ) -> None:
        super().__init__(
            enable_normalization=enable_normalization,
            enable_thresholding=enable_thresholding,
            enable_threshold_matching=enable_threshold_matching,
            image_sensitivity=image_sensitivity,
            pixel_sensitivity=pixel_sensitivity,
        )
        self.score_range = _checked_score_range(score_range)
        self.robust_range = robust_range
        self.sample_rate = sample_rate
        self.min_interval_len = min_interval_len
        self.erosion_size = erosion_size
        self.scale_erosion = scale_erosion
        if mask_size not in {"map", "image"}:
            msg = f'`mask_size` must be "map" or "image", got {mask_size!r}.'
            raise ValueError(msg)
        self.mask_size = mask_size
        # Binarising checks the other settings; better now than after hours of training.
        binarize(np.zeros((1, 1)), (0.0, 1.0), sample_rate, min_interval_len, erosion_size)
        self._map_extremes = MapExtremes()
        self._has_warned = False
        self.register_buffer("mebin_score_range", torch.full((2,), float("nan")))

    @property
    def settings(self) -> MEBinSettings:
        """All that is needed to binarise a map, as plain data; to be saved next to an exported detector."""
        low, high = self.mebin_score_range.tolist()
        fitted = (low, high) if low < high else None
        return MEBinSettings(
            score_range=fitted if isinstance(self.score_range, str) else self.score_range,
            sample_rate=self.sample_rate,
            min_interval_len=self.min_interval_len,
            erosion_size=self.erosion_size,
            scale_erosion=self.scale_erosion,
        )

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        """Settings that are kept in a checkpoint; what was fitted lies in buffers."""
        own = ("score_range", "robust_range", "sample_rate", "min_interval_len", "erosion_size", "scale_erosion")
        return (*super()._checkpoint_config_keys, *own, "mask_size")

    def binarize(self, anomaly_map: torch.Tensor, image_size_hw: tuple[int, int] | None = None) -> MEBinMasks:
        """Binarise anomaly maps ``(B, H, W)`` or ``(B, 1, H, W)`` as the detector's network yields them.

        A batch is copied to the host once, and its masks, of `image_size_hw` or the map's size, back once.
        ``ValueError`` for maps of another shape, or with NaN or infinity.
        """
        settings = self.settings
        if settings.score_range is None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "MEBin's score range was never fitted, so each map is binarised over its own range and even images "
                "without anomalies get masks. Run `Engine.validate(model=..., datamodule=...)` once, set "
                "`MEBin(score_range=(low, high))`, or fit on the images to predict: `MEBin(score_range='predict')`."
            )
        results = mebin_from_exported(anomaly_map, settings, image_size_hw)
        size_hw = image_size_hw or anomaly_map.shape[-2:]
        masks = np.stack([result.mask for result in results]) if results else np.zeros((0, *size_hw), dtype=bool)
        pred_mask = torch.from_numpy(masks).to(anomaly_map.device)
        return MEBinMasks(
            pred_mask=pred_mask.reshape(*anomaly_map.shape[:-2], *size_hw),
            threshold=torch.tensor([result.threshold for result in results], dtype=torch.float64),
            num_anomalies=torch.tensor([result.num_components for result in results], dtype=torch.int64),
        )

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Post-process the predictions of a detector's network: normalised score and map, label and mask.

        While a model is exported to ONNX or OpenVINO, there is no mask, and the anomaly map stays the detector's own,
        for ``mebin_from_exported`` to binarise.
        """
        result = super().forward(predictions)
        if predictions.anomaly_map is None or not self.enable_thresholding:
            return result
        if torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
            return result._replace(anomaly_map=predictions.anomaly_map, pred_mask=None)
        return result._replace(pred_mask=_eager_binarize(self, predictions.anomaly_map).pred_mask)

    def post_process_batch(self, batch: Batch) -> None:
        """Post-process a batch in place: MEBin first, on the map that the normalisation hasn't clipped yet."""
        if self.enable_thresholding and batch.anomaly_map is not None:
            image = batch.image if self.mask_size == "image" else None
            image_size_hw = None if image is None else tuple(image.shape[-2:])
            add_mebin_results(batch, *self.binarize(batch.anomaly_map, image_size_hw))
        super().post_process_batch(batch)

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Batch, *args: Any, **kwargs: Any
    ) -> None:
        """Gather what the score range is fitted on."""
        super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)
        if self.score_range == "validation" and outputs.anomaly_map is not None:
            self._map_extremes.update(outputs.anomaly_map)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the score range on the validation set."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._fit_score_range()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the score range on the set to predict, if asked."""
        if self.score_range == "predict":
            self._fit_on(first_pass(trainer, pl_module, "predict"))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the score range on the test set, if asked."""
        if self.score_range == "predict":
            self._fit_on(first_pass(trainer, pl_module, "test"))

    def _fit_on(self, batches_of_maps: Iterable[torch.Tensor]) -> None:
        """Fit the score range on maps, one batch at a time."""
        self._map_extremes.reset()
        for anomaly_map in batches_of_maps:
            self._map_extremes.update(anomaly_map)
        self._fit_score_range()

    def _fit_score_range(self) -> None:
        """Turn what was gathered into the score range."""
        if not self._map_extremes.update_called:
            return
        fitted = range_of_extremes(self._map_extremes.compute(), self.robust_range)
        self._map_extremes.reset()
        self.mebin_score_range.copy_(torch.tensor(fitted or (float("nan"), float("nan"))))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept checkpoints of detectors that were trained with another post-processor: nothing is fitted then."""
        state_dict.setdefault(f"{prefix}mebin_score_range", torch.full((2,), float("nan")))
        super()._load_from_state_dict(state_dict, prefix, *args)


@torch.compiler.disable
def _eager_binarize(post_processor: MEBin, anomaly_map: torch.Tensor) -> MEBinMasks:
    """Keep ``torch.compile`` away from OpenCV."""
    return post_processor.binarize(anomaly_map)


def _checked_score_range(score_range: ScoreRange) -> ScoreRange:
    """Return a score range as plain data, or raise."""
    if isinstance(score_range, str):
        if score_range in {"validation", "predict"}:
            return score_range
    elif len(score_range) == 2 and -np.inf < score_range[0] < score_range[1] < np.inf:
        return float(score_range[0]), float(score_range[1])
    msg = f'`score_range` must be "validation", "predict" or two ascending numbers, got {score_range!r}.'
    raise ValueError(msg)
