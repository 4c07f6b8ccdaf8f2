# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""An anomalib visualizer that draws images with their regions and classes."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import Visualizer
from PIL import Image

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.visualization.drawing import draw_result

logger = logging.getLogger(__name__)


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
                masks = [table.load(row)[1] for row in table.rows_of_image(index_of[path])]
                regions = (replace(one, mask=mask) for one, mask in zip(result.regions, masks, strict=True))
                result = replace(result, regions=tuple(regions))  # noqa: PLW2901
            pixels = read_image(path, bit_depth)
            pixels = draw_result(pixels, result, merging, self.side_range_px, draw_normal=self.draw_normal)
            pictures.append(Image.fromarray(pixels))
        return pictures

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
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
