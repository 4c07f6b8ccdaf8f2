# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How well the class *normal* gathers the false alarms of the detector, where labels say which they are."""

from __future__ import annotations

import numpy as np


def normal_report(is_predicted: np.ndarray, is_good: np.ndarray) -> dict[str, int | float | None]:
    """Score *normal* as a detector of false alarms, out of ``(N,)`` bool of images or regions.

    Returns:
        ``false_alarms``, the number of good ones; ``predicted``, the number predicted to be normal; ``recall``, the
        share of the good ones that are predicted to be normal; ``precision``, the share of those predicted to be normal
        that are good; ``defects_lost``, the share of the defective ones that are predicted to be normal. A share of
        nothing is ``None``.

    Example:
        >>> report = normal_report(np.array([True, True, False, False]), np.array([True, False, True, False]))
        >>> report["recall"], report["precision"], report["defects_lost"]
        (0.5, 0.5, 0.5)
    """
    is_predicted, is_good = np.asarray(is_predicted, dtype=bool), np.asarray(is_good, dtype=bool)
    if is_predicted.ndim != 1 or is_predicted.shape != is_good.shape:
        msg = f"`is_predicted` and `is_good` must both have shape (N,), got {is_predicted.shape} and {is_good.shape}."
        raise ValueError(msg)
    both = int((is_predicted & is_good).sum())
    good, predicted = int(is_good.sum()), int(is_predicted.sum())
    return {
        "false_alarms": good,
        "predicted": predicted,
        "recall": _share(both, good),
        "precision": _share(both, predicted),
        "defects_lost": _share(predicted - both, len(is_good) - good),
    }


def _share(part: int, whole: int) -> float | None:
    """A part of a whole; ``None`` where there is no whole."""
    return part / whole if whole else None
