# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The threshold below which a region's similarity to the run makes it *unknown*.

It comes from the run's own regions, each compared with those of the other images alone, so that it holds for new
regions (conformal prediction, Vovk et al., "Algorithmic Learning in a Random World", 2005).
"""

import math

import numpy as np


def rejection_threshold(similarities: np.ndarray, false_reject_rate: float) -> float:
    """Similarity below which at most a given share of new regions of known classes lies.

    With n similarities in ascending order it is the one at place ⌊rate · (n + 1)⌋. With too few of them for the rate it
    is the smallest, and the rate is 1 / (n + 1). `similarities` ``(n,)`` are of each region of the run to the others,
    itself and its image left out; ``ValueError`` without any, for NaN, or for a rate that is not above 0 and below 1.

    Example:
        >>> rejection_threshold(np.array([0.9, 0.5, 0.8, 0.7]), false_reject_rate=0.4)
        0.7
    """
    check_false_reject_rate(false_reject_rate)
    values = np.sort(np.asarray(similarities, dtype=np.float64).ravel())
    if not values.size or np.isnan(values).any():
        msg = f"`similarities` must hold numbers, one or more, got {similarities}; compare the regions of a run."
        raise ValueError(msg)
    # Rounded first, for 0.07 * 100 is 7.000000000000001.
    place = max(1, math.floor(round(false_reject_rate * (len(values) + 1), 9)))
    return float(values[min(place, len(values)) - 1])


def attained_false_reject_rate(num_similarities: int, false_reject_rate: float) -> float:
    """The rate that :func:`rejection_threshold` promises for n regions: 1 / (n + 1) at least."""
    return max(false_reject_rate, 1 / (num_similarities + 1))


def check_false_reject_rate(false_reject_rate: float) -> None:
    """Raise ``ValueError`` for a rate that is not above 0 and below 1."""
    if not 0 < false_reject_rate < 1:
        msg = f"`false_reject_rate` must be above 0 and below 1, got {false_reject_rate}; None rejects nothing."
        raise ValueError(msg)
