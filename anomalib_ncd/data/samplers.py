# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Samplers that know base from novel regions and work with one process or many."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class BalancedSampler(Sampler[int]):
    """Draws base and novel regions half and half, with replacement; as many an epoch as there are.

    With several processes each draws its share of one common sequence, which the seed and the epoch decide.
    """

    def __init__(self, is_base: torch.Tensor, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        num_base = int(is_base.sum())
        num_novel = len(is_base) - num_base
        self.weights = torch.ones(len(is_base), dtype=torch.double)
        if num_base and num_novel:
            self.weights[~is_base] = num_base / num_novel
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's sequence; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights) // self.world_size or 1

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        num_draws = len(self) * self.world_size
        drawn = torch.multinomial(self.weights, num_draws, replacement=True, generator=generator)
        return iter(drawn[self.rank :: self.world_size].tolist())


class OnceSampler(Sampler[int]):
    """Every item once over all processes, in order; processes may get one item more or less.

    Lightning's own sampler for testing repeats items until all processes have the same number.
    """

    def __init__(self, num_items: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, num_items, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
