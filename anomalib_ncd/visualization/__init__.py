# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of discovered classes."""

from anomalib_ncd.visualization.drawing import class_colours, draw_regions
from anomalib_ncd.visualization.figures import draw_confusion, draw_map, run_figures
from anomalib_ncd.visualization.gallery import draw_gallery, region_tile, write_gallery
from anomalib_ncd.visualization.logging_callback import FigureLogger
from anomalib_ncd.visualization.visualizer import NcdVisualizer

__all__ = [
    "FigureLogger",
    "NcdVisualizer",
    "class_colours",
    "draw_confusion",
    "draw_gallery",
    "draw_map",
    "draw_regions",
    "region_tile",
    "run_figures",
    "write_gallery",
]
