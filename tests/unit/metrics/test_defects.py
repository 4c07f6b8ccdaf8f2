# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from anomalib_ncd.data.defects import Defect
from anomalib_ncd.metrics.defects import count_found, defect_report, region_classes, touches


def defect(left, top, right, bottom, name="dent"):
    return Defect(name, (left, top, right, bottom), np.ones((bottom - top, right - left), bool))


def test_masks_touch_where_they_share_a_pixel():
    ring = np.ones((10, 10), bool)
    ring[2:8, 2:8] = False
    defects = [defect(4, 4, 6, 6), defect(0, 0, 3, 3), defect(9, 0, 12, 1), defect(30, 30, 31, 31)]
    found = touches([(0, 0, 10, 10), (-2, -3, 8, 7), (10.4, 0.4, 20.4, 10.4)], [ring, ring, ring], defects)
    assert found.tolist() == [[False, True, True, False], [True, False, False, False], [False, False, True, False]]
    assert touches([], [], defects).shape == (0, 4)
    assert touches([(0, 0, 10, 10)], [ring], []).shape == (1, 0)


def test_a_region_on_several_kinds_has_no_class():
    table = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 1]], bool)
    assert region_classes(table, [3, 3, 4], normal=0).tolist() == [3, -1, 0, 4]


def test_what_was_found_is_counted():
    table = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert count_found(table) == {"defects": 4, "touched": 2, "own": 1, "regions": 4, "false": 1}
    assert count_found(np.zeros((0, 2), bool)) == {"defects": 2, "touched": 0, "own": 0, "regions": 0, "false": 0}


def test_the_report_has_shares():
    preds, target = np.array([[1, 0], [1, 1]], bool), np.array([[0, 1], [1, 1]], bool)
    counts = {"defects": 4, "touched": 2, "own": 1, "regions": 4, "false": 1}
    report = defect_report(counts, preds, target)
    assert {name: report[name] for name in ("count", "recall", "touched", "num_regions", "false_alarms")} == {
        "count": 4,
        "recall": 0.25,
        "touched": 0.5,
        "num_regions": 4,
        "false_alarms": 0.25,
    }
    assert report["images"] == {"count": 2, "micro_f1": 1.0, "macro_f1": 1.0, "exact_match": 1.0}
    nothing = defect_report(dict.fromkeys(counts, 0), preds, target)
    assert nothing["recall"] is nothing["false_alarms"] is None
