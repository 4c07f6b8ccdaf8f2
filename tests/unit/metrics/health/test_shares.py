# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.metrics.health.shares import class_shares, effective_number, empty_mask_share, normal_separation


def test_shares_and_effective_number_by_hand():
    shares = class_shares(np.array([0, 0, 1, 3]), 4)
    assert shares.tolist() == [0.5, 0.25, 0, 0.25]
    assert effective_number(shares) == pytest.approx(2**1.5)
    assert effective_number(np.full(5, 0.2)) == pytest.approx(5)
    assert effective_number(np.array([1.0, 0])) == 1
    assert class_shares(np.zeros(0, int), 2).tolist() == [0, 0]
    assert effective_number(np.zeros(2)) == 0
    with pytest.raises(ValueError, match="`preds` must be from 0 to 1, got 0 to 2"):
        class_shares(np.array([0, 2]), 2)


def test_empty_masks_by_hand():
    assert empty_mask_share(np.array([0, 3, 0, 9, 1])) == 0.4
    assert np.isnan(empty_mask_share(np.zeros(0)))


def test_normal_separation_by_hand():
    # Of 2 * 3 pairs, the normal region scores lower in five, and equal in one.
    scores = np.array([0.1, 0.4, 0.4, 0.6, 0.9])
    is_normal = np.array([True, True, False, False, False])
    assert normal_separation(scores, is_normal) == pytest.approx(5.5 / 6)
    assert normal_separation(-scores, is_normal) == pytest.approx(0.5 / 6)
    assert np.isnan(normal_separation(scores, np.zeros(5, bool)))
    assert np.isnan(normal_separation(scores, np.ones(5, bool)))
    with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(5,\) and \(4,\)"):
        normal_separation(scores, is_normal[:4])
