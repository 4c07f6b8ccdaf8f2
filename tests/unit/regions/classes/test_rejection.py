# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.regions.classes.rejection import (
    attained_false_reject_rate,
    rejection_threshold,
)


@pytest.mark.parametrize(
    ("count", "rate", "place"),
    [(99, 0.02, 2), (99, 0.07, 7), (49, 0.02, 1), (4, 0.4, 2), (4, 0.02, 1), (1, 0.5, 1), (10, 0.999, 10)],
)
def test_the_threshold_is_an_order_statistic(count, rate, place):
    values = np.random.default_rng(0).permutation(np.arange(1, count + 1)) / 100
    assert rejection_threshold(values, rate) == place / 100


def test_the_rate_holds_on_average_for_new_values():
    # Exchangeable values: the share below the threshold is at most the rate, whatever their distribution.
    rng = np.random.default_rng(0)
    draws = rng.standard_exponential((4000, 60))
    shares = [(row[0] < rejection_threshold(row[1:], 0.1)) for row in draws]
    assert 0.08 < np.mean(shares) <= 0.11


def test_too_few_values_reach_what_they_can():
    assert attained_false_reject_rate(99, 0.02) == 0.02
    assert attained_false_reject_rate(9, 0.02) == 0.1


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan")])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match="`false_reject_rate` must be above 0 and below 1"):
        rejection_threshold(np.ones(3), rate)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")]])
def test_what_is_no_similarity_is_refused(values):
    with pytest.raises(ValueError, match="`similarities` must hold numbers, one or more"):
        rejection_threshold(np.array(values), 0.1)
