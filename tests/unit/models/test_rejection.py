# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomalib_ncd.models import rejection as rejection_module
from anomalib_ncd.models.rejection import RegionRejection, attained_false_reject_rate, rejection_threshold


def draw(count, centres=(0, 3, 6), seed=0, spread=1.0, dim=16):
    """Regions around class centres, in units that differ by dimension and with an offset that all share."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(9, dim, generator=torch.Generator().manual_seed(99)) * 3
    chosen = torch.tensor(centres)[torch.randint(0, len(centres), (count,), generator=generator)]
    rows = directions[chosen] + spread * torch.randn(count, dim, generator=generator)
    return rows * torch.logspace(-0.5, 0.5, dim) + 20


def fitted(rate=0.05, count=200):
    rejection = RegionRejection(rate)
    rejection.fit(draw(count), torch.arange(count))
    return rejection


def test_the_rate_holds_for_new_regions_and_new_kinds_are_unknown():
    rates = []
    for seed in range(8):
        rejection = RegionRejection(0.05)
        rejection.fit(draw(200, seed=seed), torch.arange(200))
        rates.append(float(rejection.is_unknown(draw(500, seed=100 + seed)).float().mean()))
        assert rejection.is_unknown(draw(100, centres=(8,))).float().mean() > 0.9
    assert 0.03 < sum(rates) / len(rates) < 0.07


def test_regions_of_the_run_are_known():
    # Each is its own nearest region.
    assert not fitted().is_unknown(draw(200)).any()


def test_regions_of_one_image_do_not_vouch_for_each_other():
    rows = draw(60)
    twice = RegionRejection(0.1)
    twice.fit(rows.repeat_interleave(2, dim=0), torch.arange(60).repeat_interleave(2))
    once = RegionRejection(0.1)
    once.fit(rows, torch.arange(60))
    torch.testing.assert_close(twice.left_out_similarity[::2], once.left_out_similarity)
    assert (twice.left_out_similarity < 0.999).all()


def test_a_new_kind_beside_a_single_one_is_unknown():
    # What is far off in a direction that the run's own regions take by chance is far off all the same.
    rates = []
    for seed in range(5):
        rejection = RegionRejection(0.05)
        rejection.fit(draw(60, centres=(0,), seed=seed), torch.arange(60))
        rates.append(float(rejection.is_unknown(draw(200, centres=(0,), seed=50 + seed)).float().mean()))
        assert rejection.is_unknown(draw(50, centres=(8,))).float().mean() > 0.95
    assert 0.02 < sum(rates) / len(rates) < 0.09


def test_the_comparison_by_hand():
    features, new = draw(30), draw(4, seed=5)
    rejection = RegionRejection(0.1)
    rejection.fit(features, torch.arange(30))
    rows, others = (F.normalize(one.double(), dim=1) for one in (features, new))
    centre, scale = rows.mean(dim=0), rows.std(dim=0, correction=0)
    rows, others = (torch.cat([(one - centre) / scale, torch.full((len(one), 1), 4.0)], 1) for one in (rows, others))
    expected = F.cosine_similarity(others[:, None], rows[None], dim=2).amax(dim=1)
    torch.testing.assert_close(rejection(new).double(), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(rejection(new * 7), rejection(new), atol=1e-3, rtol=0)


def test_a_region_does_not_depend_on_the_others():
    rejection, new = fitted(), draw(20, centres=(0, 8), seed=4)
    alone = torch.cat([rejection.is_unknown(row[None]) for row in new])
    assert torch.equal(rejection.is_unknown(new), alone)
    assert alone.any()
    assert not alone.all()


def test_without_a_rate_or_regions_nothing_is_unknown():
    assert RegionRejection(0.1).threshold is None
    assert not RegionRejection(0.1).is_unknown(draw(5)).any()
    assert RegionRejection(0.1)(draw(5)).tolist() == [1.0] * 5
    never = RegionRejection(None)
    never.fit(draw(50), torch.arange(50))
    assert not never.is_unknown(draw(5, centres=(8,))).any()
    with pytest.raises(ValueError, match="`false_reject_rate` must be above 0"):
        RegionRejection(0.0)


def test_no_region_is_a_result():
    rejection = RegionRejection(0.1)
    rejection.fit(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert not rejection.is_fitted
    assert rejection.is_unknown(torch.zeros(0, 4)).shape == (0,)


def test_one_region_and_equal_regions_reject_nothing_like_them():
    for count in (1, 5):
        rejection = RegionRejection(0.1)
        rejection.fit(torch.ones(count, 4), torch.arange(count))
        assert torch.isfinite(rejection(torch.rand(3, 4))).all()
        assert not rejection.is_unknown(torch.ones(2, 4)).any()


def test_too_few_regions_are_said(caplog):
    fitted(rate=0.02, count=9)
    assert "With 9 regions, up to 10 % of new regions" in caplog.text


def test_regions_of_a_new_class_become_known():
    rejection, new = fitted(), draw(30, centres=(8,))
    assert rejection.is_unknown(new).float().mean() > 0.9
    rejection.extend(new[:20], torch.arange(20))
    assert rejection.groups.unique().tolist() == list(range(220))
    assert rejection.is_unknown(new[20:]).float().mean() < 0.5
    assert not rejection.is_unknown(new[:20]).any()
    first = RegionRejection(0.1)
    first.extend(draw(5), torch.arange(5))
    assert len(first.references) == 5


def test_it_travels_with_a_state_dict():
    source, target = fitted(), RegionRejection(0.05)
    target.load_state_dict(source.state_dict())
    new = draw(20, centres=(0, 8))
    assert torch.equal(target(new), source(new))
    assert target.threshold == source.threshold
    target.false_reject_rate = 0.5
    assert target.threshold > source.threshold
    target.load_state_dict(RegionRejection().state_dict())
    assert not target.is_fitted


def test_of_too_many_regions_some_are_kept(monkeypatch):
    monkeypatch.setattr(rejection_module, "MAX_REFERENCES", 60)
    rejection = fitted(count=200)
    assert len(rejection.references) == len(rejection.left_out_similarity) == 50
    assert F.normalize(rejection.references, dim=1).allclose(rejection.references)


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


def test_example_of_region_rejection():
    rejection = RegionRejection(false_reject_rate=0.5)
    rejection.fit(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), groups=torch.tensor([0, 1, 2]))
    assert torch.equal(rejection.is_unknown(torch.tensor([[0.7, 0.7], [-1.0, 0.0]])), torch.tensor([False, True]))


def test_example_of_rejection_threshold():
    assert rejection_threshold(np.array([0.9, 0.5, 0.8, 0.7]), false_reject_rate=0.4) == 0.7
