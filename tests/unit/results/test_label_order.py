# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from anomalib_ncd.results.label_order import unit_rows


def test_rows_have_norm_1():
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16)
    np.testing.assert_allclose(np.linalg.norm(unit_rows(rows), axis=1), 1)
    assert unit_rows(rows).dtype == np.float64
