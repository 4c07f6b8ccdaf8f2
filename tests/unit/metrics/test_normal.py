# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.metrics.normal import normal_report


def test_report_by_hand():
    predicted = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    good = np.array([1, 1, 0, 1, 1, 0, 0, 0], bool)
    assert normal_report(predicted, good) == {
        "false_alarms": 4,
        "predicted": 3,
        "recall": 0.5,
        "precision": 2 / 3,
        "defects_lost": 0.25,
    }


def test_a_share_of_nothing_is_none():
    nothing = np.zeros(2, bool)
    assert normal_report(nothing, nothing)["recall"] is None
    assert normal_report(nothing, ~nothing)["precision"] is None
    assert normal_report(~nothing, ~nothing)["defects_lost"] is None
    with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(2,\) and \(3,\)"):
        normal_report(nothing, np.zeros(3, bool))
