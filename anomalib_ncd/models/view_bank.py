# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen features of a fixed set of augmented views, computed once instead of in every epoch.

Only the last block learns, and of its output only the class token is used. What the frozen blocks make of a view
therefore never changes, and of that only the tokens matter that the class token may look at. A bank keeps those, in
half precision, for several views of each region; every epoch draws its views from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from anomalib_ncd.data.batches import RegionViewBatch
from anomalib_ncd.data.datasets import TrainRegions

Trunk = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class ViewBank(Dataset):
    """Tokens of several views of each region; an item holds views drawn at random, each at most once.

    Args:
        regions: The regions that the views show.
        tokens: ``(T, D)`` half, the attended tokens of all views one after the other, class token first.
        starts: ``(R, V + 1)`` long, where the tokens of each view begin, and where those of the last one end.
    """

    def __init__(self, regions: TrainRegions, tokens: torch.Tensor, starts: torch.Tensor) -> None:
        self.regions = regions
        self.tokens = tokens
        self.starts = starts

    @classmethod
    def build(
        cls,
        regions: TrainRegions,
        trunk: Trunk,
        num_views: int,
        device: torch.device,
        views_per_batch: int = 64,
        num_workers: int = 0,
    ) -> ViewBank:
        """Compute the bank, with a progress bar.

        Args:
            regions: Training set; its own number of views per item doesn't matter.
            trunk: Takes views ``(B, 3, S, S)`` uint8 and masks ``(B, 1, S, S)`` and returns tokens ``(B, N, D)`` and
                the attended ones ``(B, N)`` bool, the class token first.
            num_views: Views per region.
            device: Where the trunk runs.
            views_per_batch: Views that go through the trunk at once; larger batches gain no speed, only memory.
            num_workers: Processes that augment.

        Returns:
            The bank, on the CPU.

        Raises:
            ValueError: If fewer views are asked for than an item needs.
        """
        if num_views < regions.n_views:
            msg = f"`num_cached_views` must be at least {regions.n_views}, the views per region, got {num_views}."
            raise ValueError(msg)
        loader = DataLoader(
            _ManyViews(regions, num_views),
            batch_size=max(1, views_per_batch // num_views),
            num_workers=num_workers,
            collate_fn=RegionViewBatch.collate,
        )
        pieces: list[torch.Tensor] = []
        lengths: list[torch.Tensor] = []
        for batch in tqdm(loader, desc=f"Caching {num_views} views", unit="batch"):
            kept, counts = _attended_tokens(batch, trunk, device)
            pieces.append(kept)
            lengths.append(counts)
        counts = torch.cat(lengths)
        ends = counts.flatten().cumsum(0).reshape(counts.shape)
        starts = torch.cat([ends[:, :1] - counts[:, :1], ends], dim=1)
        return cls(regions, torch.cat(pieces), starts)

    @property
    def num_views(self) -> int:
        """Views per region."""
        return self.starts.shape[1] - 1

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: int) -> RegionViewBatch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[RegionViewBatch]:
        """Items padded to one length, so that they can be joined."""
        drawn = [torch.randperm(self.num_views)[: self.regions.n_views].tolist() for _ in indices]
        views = [
            [self.tokens[self.starts[index, view] : self.starts[index, view + 1]] for view in chosen]
            for index, chosen in zip(indices, drawn, strict=True)
        ]
        longest = max(len(view) for item in views for view in item)
        items = []
        for index, item_views in zip(indices, views, strict=True):
            item = self.regions.describe(index)
            item.tokens = torch.zeros(len(item_views), 1, longest, self.tokens.shape[1], dtype=self.tokens.dtype)
            item.attended = torch.zeros(len(item_views), 1, longest, dtype=torch.bool)
            for number, view in enumerate(item_views):
                item.tokens[number, 0, : len(view)] = view
                item.attended[number, 0, : len(view)] = True
            items.append(item)
        return items


class _ManyViews(Dataset):
    """The regions with another number of views per item."""

    def __init__(self, regions: TrainRegions, num_views: int) -> None:
        self.regions = regions
        self.num_views = num_views

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: int) -> RegionViewBatch:
        return self.regions.with_views(index, self.num_views)


def _attended_tokens(
    batch: RegionViewBatch,
    trunk: Trunk,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attended tokens of a batch, region by region and view by view, and their number per view ``(B, V)``."""
    if batch.image is None or batch.mask is None:
        msg = "A bank is made from images, but the batch holds none."
        raise ValueError(msg)
    # (V, B, ...) -> (B * V, ...), so that the views of a region lie together.
    images = batch.image.transpose(0, 1).flatten(0, 1)
    masks = batch.mask.transpose(0, 1).flatten(0, 1)
    tokens, attended = trunk(images.to(device), masks.to(device))
    counts = attended.sum(dim=1).reshape(batch.batch_size, -1)
    return tokens[attended].half().cpu(), counts.cpu()
