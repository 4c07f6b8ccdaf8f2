# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What stands out most in an anomaly map, where nothing stands out enough for a main element."""

import cv2
import numpy as np

from anomalib_ncd.regions.mebin import check_map


def peak_mask(anomaly_map: np.ndarray) -> np.ndarray:
    """Find the part of a map around its highest value, ``(H, W)`` bool; empty for a constant map.

    It is what is connected with the highest value, diagonals included, and above half way from the median to it. Not
    in the paper, which takes the whole image where MEBin finds nothing.

    Example:
        >>> peak_mask(np.array([[0, 0, 5], [0, 9, 0], [0, 0, 0], [6, 0, 0]])).astype(int)
        array([[0, 0, 1],
               [0, 1, 0],
               [0, 0, 0],
               [0, 0, 0]])
    """
    array = check_map(anomaly_map).astype(np.float64)
    above = array > (np.median(array) + array.max()) / 2
    parts = cv2.connectedComponents(above.view(np.uint8), connectivity=8)[1]
    return (parts == parts[np.unravel_index(array.argmax(), array.shape)]) & above
