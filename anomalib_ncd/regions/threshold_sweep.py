# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The sweep of thresholds over a quantised map, the costly part of MEBin."""

import cv2
import numpy as np

_UNKNOWN = -1
_Box = tuple[int, int, int, int]  # left, top, width, height


def sweep_thresholds(sample_rate: int) -> np.ndarray:
    """List the thresholds of a sweep, 255, 255 - `sample_rate`, … down to above 0, for a whole number from 1 to 255."""
    if sample_rate != int(sample_rate) or not 1 <= sample_rate <= 255:
        msg = f"`sample_rate` must be a whole number from 1 to 255, got {sample_rate}; 4 is the paper's."
        raise ValueError(msg)
    return np.arange(255, 0, -int(sample_rate))


class ThresholdSweep:
    """Counts the components of a map's masks, doing as little as gives the exact counts.

    Masks are nested: each lies inside the mask of any lower threshold. So thresholds are visited from the lowest up,
    inside a shrinking bounding box, and a mask with as many pixels as the one before is that mask.

    Args:
        levels: ``(H, W)`` uint8, already eroded. The mask at threshold t is ``levels > t``.
        thresholds: ``(K,)`` whole numbers from 1 to 255, descending.
    """

    def __init__(self, levels: np.ndarray, thresholds: np.ndarray) -> None:
        self.thresholds = thresholds
        self._levels = levels
        self._frame: _Box = cv2.boundingRect(levels)  # type: ignore[assignment]
        histogram = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        at_least = np.append(histogram[::-1].cumsum()[::-1], 0)
        self._num_pixels = at_least[thresholds + 1]
        self._counts = np.where(self._num_pixels == 0, 0, _UNKNOWN)
        self._boxes: list[_Box | None] = [None] * len(thresholds)

    def count_all(self) -> np.ndarray:
        """Count at every threshold; ``(K,)`` int64."""
        self._count_where(np.ones(len(self.thresholds), dtype=bool))
        return self._counts

    def count_stable(self, min_interval_len: int) -> np.ndarray:
        """Count where a run of `min_interval_len` equal counts or more is possible; ``(K,)`` int64, elsewhere -1.

        A run of n holds two neighbours of any grid of step n // 2. So the grid is counted first, then whatever lies
        around its equal neighbours. The -1 come in runs shorter than n.
        """
        step = max(1, min_interval_len // 2)
        if step == 1:
            return self.count_all()
        wanted = np.zeros(len(self.thresholds), dtype=bool)
        wanted[::step] = True
        self._count_where(wanted)
        grid = np.flatnonzero(wanted)
        on_grid = self._counts[grid]
        for index in grid[:-1][(on_grid[:-1] == on_grid[1:]) & (on_grid[1:] > 0)]:
            wanted[max(0, index - step) : index + 2 * step] = True
        self._count_where(wanted)
        return self._counts

    def _count_where(self, wanted: np.ndarray) -> None:
        """Fill in the counts that are wanted and not known yet."""
        box, known = self._frame, None
        for index in reversed(range(len(self.thresholds))):
            if self._num_pixels[index] == 0:
                break
            if self._boxes[index] is None:
                if not wanted[index]:
                    continue
                if known is not None and self._num_pixels[index] == self._num_pixels[known]:
                    self._counts[index], self._boxes[index] = self._counts[known], box
                else:
                    self._counts[index], self._boxes[index] = self._count_inside(box, int(self.thresholds[index]))
            box, known = self._boxes[index] or box, index

    def _count_inside(self, box: _Box, threshold: int) -> tuple[int, _Box]:
        """Count the components of one mask inside a box that holds them all, and find their own box."""
        left, top, width, height = box
        mask = cv2.threshold(self._levels[top : top + height, left : left + width], threshold, 1, cv2.THRESH_BINARY)[1]
        x, y, width, height = cv2.boundingRect(mask)
        count = cv2.connectedComponents(mask[y : y + height, x : x + width], connectivity=8)[0] - 1
        return count, (left + x, top + y, width, height)
