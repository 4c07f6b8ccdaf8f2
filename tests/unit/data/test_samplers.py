# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.data.samplers import BalancedSampler, OnceSampler


@pytest.mark.parametrize("num_base", [3, 100, 900])
def test_base_and_novel_are_drawn_half_and_half(num_base):
    is_base = torch.arange(1000) < num_base
    drawn = torch.tensor([index for epoch in range(4) for index in _epoch(BalancedSampler(is_base), epoch)])
    assert len(drawn) == 4000
    assert is_base[drawn].float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_all_of_a_kind_are_equally_likely():
    is_base = torch.tensor([True] * 2 + [False] * 8)
    counts = torch.zeros(10)
    for epoch in range(2000):
        counts += torch.bincount(torch.tensor(_epoch(BalancedSampler(is_base), epoch)), minlength=10)
    shares = counts / counts.sum()
    torch.testing.assert_close(shares, torch.tensor([0.25] * 2 + [0.0625] * 8), atol=0.01, rtol=0)


@pytest.mark.parametrize("value", [True, False])
def test_one_kind_alone_is_drawn_evenly(value):
    is_base = torch.full((50,), value)
    drawn = _epoch(BalancedSampler(is_base), 0)
    assert len(drawn) == 50
    assert set(drawn) <= set(range(50))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_one_sequence(world_size):
    is_base = torch.arange(42) < 20
    parts = [_epoch(BalancedSampler(is_base, rank, world_size, seed=5), 3) for rank in range(world_size)]
    assert {len(part) for part in parts} == {42 // world_size}
    together = [index for step in zip(*parts, strict=True) for index in step]
    assert together == _epoch(BalancedSampler(is_base, seed=5), 3)


def test_epochs_and_seeds_differ_and_repeat():
    is_base = torch.arange(60) < 30
    first = _epoch(BalancedSampler(is_base), 0)
    assert first == _epoch(BalancedSampler(is_base), 0)
    assert first != _epoch(BalancedSampler(is_base), 1)
    assert first != _epoch(BalancedSampler(is_base, seed=1), 0)


def test_more_processes_than_regions_still_draw():
    sampler = BalancedSampler(torch.tensor([False]), rank=1, world_size=2)
    assert len(sampler) == 1
    assert list(sampler) == [0]


@pytest.mark.parametrize(("num_items", "world_size"), [(10, 1), (10, 2), (11, 2), (3, 5), (0, 2)])
def test_every_item_comes_once(num_items, world_size):
    samplers = [OnceSampler(num_items, rank, world_size) for rank in range(world_size)]
    drawn = [index for sampler in samplers for index in sampler]
    assert sorted(drawn) == list(range(num_items))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
    assert max(map(len, samplers)) - min(map(len, samplers)) <= 1


def test_one_process_keeps_the_order():
    assert list(OnceSampler(5)) == [0, 1, 2, 3, 4]


def _epoch(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)
