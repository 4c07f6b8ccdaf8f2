# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a detector's maps are in the units of the maps that a run was made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anomalib_ncd.deploy.detectors import Detector
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.maps import read_anomaly_map
from anomalib_ncd.regions.resampling import resize_antialiased

MAX_DIFFERENCE = 0.1
NUM_IMAGES = 4


def check_detector(
    detector: Detector,
    images: Sequence[Path],
    map_paths: Sequence[Path],
    score_range: tuple[float, float],
    bit_depth: int = 16,
) -> float:
    """Compare a detector's maps of some images with those that MEBin's range was fitted to.

    An exported detector may normalise and clip its maps; the range would then mean nothing.

    Returns:
        Median over the images of the mean difference, as a share of the score range.

    Raises:
        ValueError: If it is above 0.1.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(NUM_IMAGES, len(images))).astype(int))
    width = max(score_range[1] - score_range[0], np.finfo(np.float32).tiny)
    differences = []
    for index in chosen:
        [anomaly_map] = detector.detect([read_image(images[index], bit_depth)], [images[index]])
        wanted = read_anomaly_map(map_paths[index]).astype(np.float32)
        found = resize_antialiased(anomaly_map, (wanted.shape[0], wanted.shape[1]))
        differences.append(float(np.abs(found - wanted).mean() / width))
    difference = float(np.median(differences))
    if not difference <= MAX_DIFFERENCE:
        msg = (
            f"The detector's maps differ from the run's by {difference:.2g} of the score range: they are in other "
            "units. Was it exported with a post-processor that normalises? Give its checkpoint, or run `discover` on "
            "maps of this very detector."
        )
        raise ValueError(msg)
    return difference
