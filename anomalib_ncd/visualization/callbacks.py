# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Callbacks of anomalib's Engine: pictures of images with their regions in files, figures of a run in loggers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import Visualizer
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback
from PIL import Image

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.visualization.drawing import draw_result
from anomalib_ncd.visualization.figures import MAX_MAPPED_REGIONS, run_figures


class NcdVisualizer(Visualizer):
    """Draws each image with its regions: box, outline of the mask, class and confidence, a colour per class.

    Pictures of testing and prediction are PNG files with the images' paths relative to the source of images.

    Args:
        output_dir: Where they go. Defaults to ``None``: ``images`` in the folder of the run, as with anomalib's own.
        draw_normal: Draw regions of the class *normal*, too, in grey.
        side_range_px: Range that the longer side of a picture is brought into.

    Example:
        >>> model = AnomalyNcd(visualizer=NcdVisualizer(draw_normal=False))  # doctest: +SKIP
    """

    def __init__(
        self,
        output_dir: str | Path | None = None,
        draw_normal: bool = True,
        side_range_px: tuple[int, int] = (512, 1600),
    ) -> None:
        super().__init__()
        self.output_dir = output_dir
        self.draw_normal = draw_normal
        self.side_range_px = side_range_px

    def visualize(
        self, predictions: NcdBatch, merging: RegionMerging, table: RegionTable | None = None
    ) -> list[Image.Image]:
        """Draw the images of a batch from their files, one picture each; without ``table`` no outlines of masks.

        ``ValueError`` if the batch has no predictions, or an image can't be read.
        """
        index_of = {} if table is None else {str(record.path): i for i, record in enumerate(table.images)}
        bit_depth = 16 if table is None else table.settings.bit_depth
        pictures = []
        for path, result in zip(predictions.image_path, predictions.image_results(merging), strict=True):
            if table is not None and path in index_of:
                masks = [table.load(row)[1] for row in table.rows_of_image[index_of[path]]]
                regions = (replace(one, mask=mask) for one, mask in zip(result.regions, masks, strict=True))
                result = replace(result, regions=tuple(regions))  # noqa: PLW2901
            pixels = read_image(path, bit_depth)
            pixels = draw_result(pixels, result, merging, self.side_range_px, draw_normal=self.draw_normal)
            pictures.append(Image.fromarray(pixels))
        return pictures

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Save pictures of a tested or predicted batch."""
        del args, kwargs
        if not isinstance(outputs, NcdBatch):
            msg = f"NcdVisualizer draws what AnomalyNcd predicts, got {type(outputs).__name__}; use anomalib's own."
            raise TypeError(msg)
        datamodule = getattr(trainer, "datamodule", None)
        table = datamodule.region_table() if isinstance(datamodule, NcdDataModule) else None
        keys = {} if table is None else {str(record.path): record.key for record in table.images}
        folder = Path(trainer.default_root_dir) / "images" if self.output_dir is None else Path(self.output_dir)
        pictures = self.visualize(outputs, pl_module.region_merging, table)
        for path, picture in zip(outputs.image_path, pictures, strict=True):
            named = folder / keys[path] if path in keys else generate_output_filename(path, folder).with_suffix("")
            file = named.with_name(f"{named.name}.png")
            write_image(file, np.asarray(picture))

    on_predict_batch_end = on_test_batch_end


class FigureLogger(Callback):
    """Gives the figures of a run to the trainer's loggers when testing or prediction ends.

    Loggers take images if they have anomalib's ``add_image``, such as ``anomalib.loggers.AnomalibTensorBoardLogger``.
    They get the gallery, the regions of each class, the map of regions and, where labels are known, the confusion
    matrix of images, under names such as ``test/gallery.png``. Without such a logger nothing is kept or drawn.
    :class:`~anomalib_ncd.AnomalyNcd` brings one along. With ``draw_map`` regions are laid out in two dimensions, which
    takes seconds for thousands of them.
    """

    def __init__(self, draw_map: bool = True) -> None:
        super().__init__()
        self.draw_map = draw_map
        self.batches: list[NcdBatch] = []

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget what an earlier run has left."""
        del trainer, pl_module
        self.batches = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the predictions of a batch on the CPU, without pixels, where they will be drawn."""
        del pl_module, args, kwargs
        if isinstance(outputs, NcdBatch) and image_loggers(trainer):
            self.batches.append(move_data_to_device(outputs.without_pixels(), torch.device("cpu")))

    on_predict_start, on_predict_batch_end = on_test_start, on_test_batch_end

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the figures of the test."""
        self._log(trainer, pl_module, "test")

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the figures of the prediction."""
        self._log(trainer, pl_module, "predict")

    def _log(self, trainer: Any, pl_module: Any, stage: str) -> None:
        loggers = image_loggers(trainer)
        if not loggers:
            return
        batches, self.batches = _gathered(self.batches, trainer.world_size), []
        if not trainer.is_global_zero:
            return
        datamodule = _datamodule_of(batches, trainer)
        figures = run_figures(
            batches,
            pl_module.region_merging,
            None if datamodule is None else datamodule.region_table(),
            [] if datamodule is None else datamodule.class_names,
            _positions(batches) if self.draw_map else None,
        )
        for logger in loggers:
            for name, picture in figures.items():
                # MLflow tells the format from the ending; TensorBoard wants a step, the others pass it over.
                # File systems and services don't take every character; folders stay.
                safe = re.sub(r"[^\w/ .()-]", "_", name)
                logger.add_image(picture, name=f"{stage}/{safe}.png", global_step=trainer.global_step)
            logger.save()  # the one for Weights & Biases sends its images here


def missing_figure_loggers(trainer: Any) -> list[Callback]:
    """A :class:`FigureLogger` for a trainer that has none yet; one that the user gave stays in force."""
    return [] if any(isinstance(callback, FigureLogger) for callback in trainer.callbacks) else [FigureLogger()]


def image_loggers(trainer: Any) -> list[Any]:
    """The trainer's loggers that take images in anomalib's way."""
    return [logger for logger in trainer.loggers if callable(getattr(logger, "add_image", None))]


def _datamodule_of(batches: list[NcdBatch], trainer: Any) -> NcdDataModule | None:
    """The datamodule that the predictions are about; the trainer may still hold that of an earlier call."""
    datamodule = trainer.datamodule
    if not isinstance(datamodule, NcdDataModule):
        return None
    known = {str(record.path) for record in datamodule.records}
    return datamodule if all(path in known for batch in batches for path in batch.image_path) else None


def _positions(batches: list[NcdBatch]) -> np.ndarray | None:
    """The map of all regions; ``None`` where features are unknown, or there are more regions than can be told apart."""
    # scikit-learn, which lays them out, takes a second to import that other runs needn't spend.
    from anomalib_ncd.visualization.report.embedding import map_regions  # noqa: PLC0415

    if not batches or any(batch.region_feature is None for batch in batches):
        return None
    features = torch.cat([batch.region_feature for batch in batches if batch.region_feature is not None])
    return map_regions(features.float().numpy()) if len(features) <= MAX_MAPPED_REGIONS else None


def _gathered(batches: list[NcdBatch], world_size: int) -> list[NcdBatch]:
    if world_size == 1:
        return batches
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, batches)
    return [batch for part in parts for batch in part]
