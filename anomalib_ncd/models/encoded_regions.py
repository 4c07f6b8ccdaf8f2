# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions that are encoded once: for the number of classes, the start of training, rejection and predictions."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from anomalib_ncd.data.batches import NcdBatch, RegionViewBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.datasets import NUM_VIEWS, TrainRegions
from anomalib_ncd.data.detector_maps import digest_of_weights
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.models.describer import FrozenFeatures
from anomalib_ncd.regions.writing import whole_file

Describe: TypeAlias = Callable[[NcdBatch], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
REGION_ROWS = ("region_feature", "region_reference", "region_appearance")

Trunk = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def encode_images(describe: Describe, batches: Iterable[NcdBatch]) -> list[NcdBatch]:
    """Describe the regions of images: without pixels, on the CPU, with :data:`REGION_ROWS`."""
    encoded = []
    for batch in batches:
        with torch.no_grad():
            described = zip(REGION_ROWS, (rows.float().cpu() for rows in describe(batch)), strict=True)
        encoded.append(batch.without_pixels().update(**dict(described)))
    return encoded


class RegionCache:
    """The regions of the table that was described last, so that they are described once a run."""

    def __init__(self) -> None:
        self._table: RegionTable | None = None
        self._encoded: list[NcdBatch] = []

    def encode(self, describe: Describe, datamodule: NcdDataModule) -> list[NcdBatch]:
        """Describe all regions of a datamodule, whatever process asks, or take them from the last time.

        In single precision and of the views that predictions are made from, as new regions are compared with the
        run's. ``ValueError`` if there is no region.
        """
        table = datamodule.region_table()
        if not len(table):
            found = f"No region was found in any of {len(table.images)} images"
            msg = f"{found}; check their anomaly maps, or give another `score_range` or method of `regions`."
            raise ValueError(msg)
        if self._table is not table:
            self._encoded = encode_images(describe, datamodule.all_images())
            self._table = table
        return [replace(batch) for batch in self._encoded]


def rows_of(encoded: Sequence[NcdBatch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What clusters and rejection take of all regions that :func:`encode_images` has described, else ``ValueError``.

    Features ``(R, D)`` float, scores ``(R,)`` in [0, 1], references ``(R, E)``, and the image of each, ``(R,)`` long.
    """
    whole = NcdBatch.collate(encoded)
    reference = given(whole.region_reference, "A batch holds no references of its regions")
    feature = given(whole.region_feature, "The images hold no features of their regions")
    return feature, whole.region_score, reference, whole.region_image_index


def given(rows: torch.Tensor | None, otherwise: str) -> torch.Tensor:
    """What :func:`encode_images` fills in, or an error that says what is lacking."""
    if rows is None:
        msg = f"{otherwise}; run `discover` again, or pass what `encode_images` returns."
        raise ValueError(msg)
    return rows


class ViewBank(Dataset):
    """Tokens of several views of each region; an item holds views drawn at random, each at most once.

    Tokens ``(T, D)`` half are the attended ones of all views one after the other, class token first; ``starts``
    ``(R, V + 1)`` long says where those of each view begin, and where those of the last one end.
    """

    def __init__(self, regions: TrainRegions, tokens: torch.Tensor, starts: torch.Tensor) -> None:
        self.regions, self.tokens, self.starts = regions, tokens, starts
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def build(
        cls,
        regions: TrainRegions,
        trunk: Trunk,
        num_views: int,
        device: torch.device,
        folder: str | Path | None = None,
        made_from: dict[str, Any] | None = None,
        seed: int = 0,
        views_per_batch: int = 16,
        num_workers: int = 0,
    ) -> ViewBank:
        """Compute the bank, with a progress bar, or take up the one that lies in the folder.

        The tokens lie in ``tokens.bin``, which is mapped into memory; ``counts.npz``, written last, has the number of
        tokens of each view, and what the bank was made from. The views of a region depend on the seed and on its index
        alone. The trunk runs on ``device``; it takes views ``(B, 3, S, S)`` uint8 and masks ``(B, 1, S, S)``, and
        returns tokens ``(B, N, D)`` and the attended ones ``(B, N)`` bool, the class token first. ``made_from`` tells
        it from other trunks: a bank made from something else is made anew. Without ``folder`` a temporary one goes with
        the bank. ``num_workers`` processes augment ``views_per_batch`` views that go through the trunk at once.
        """
        if num_views < NUM_VIEWS:
            msg = f"`num_cached_views` must be at least {NUM_VIEWS}, the views per region, got {num_views}."
            raise ValueError(msg)
        temporary = None
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="cached_views_")
            folder = temporary.name
        folder = Path(folder)
        content = {"trunk": made_from or {}, "regions": regions.fingerprint(), "seed": seed, "num_views": num_views}
        made_from_text = json.dumps(content, sort_keys=True)
        if not _is_made_from(folder, made_from_text):
            loader = DataLoader(
                _ManyViews(regions, num_views, seed),
                batch_size=max(1, views_per_batch // num_views),
                num_workers=num_workers,
                collate_fn=RegionViewBatch.collate,
            )
            # A loader draws a seed, and what comes after must not depend on it.
            with torch.random.fork_rng(devices=[]):
                batches = tqdm(loader, desc=f"Caching {num_views} views", unit="batch")
                _write(folder, (_attended_tokens(batch, trunk, device) for batch in batches), made_from_text)
        bank = cls(regions, *_read(folder))
        bank._temporary = temporary
        return bank

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
        drawn = [torch.randperm(self.num_views)[:NUM_VIEWS].tolist() for _ in indices]
        views = [
            [self.tokens[self.starts[index, view] : self.starts[index, view + 1]] for view in chosen]
            for index, chosen in zip(indices, drawn, strict=True)
        ]
        longest = max(len(view) for item in views for view in item)
        items = []
        for index, item_views in zip(indices, views, strict=True):
            item = self.regions.without_views(index)
            item.tokens = torch.zeros(len(item_views), 1, longest, self.tokens.shape[1], dtype=self.tokens.dtype)
            item.attended = torch.zeros(len(item_views), 1, longest, dtype=torch.bool)
            for number, view in enumerate(item_views):
                item.tokens[number, 0, : len(view)] = view
                item.attended[number, 0, : len(view)] = True
            items.append(item)
        return items


def cache_views(
    datamodule: NcdDataModule,
    trunk: Trunk,
    num_views: int,
    device: torch.device,
    made_from: dict[str, Any] | None = None,
) -> ViewBank:
    """Build the bank of a datamodule's regions, or take up the one in its ``work_dir``.

    Of several processes the first one builds it, and the others read it; without ``work_dir`` each builds its own.
    Arguments as :meth:`ViewBank.build`.
    """
    regions = datamodule.train_regions()
    with datamodule.first_process_first():
        return ViewBank.build(
            regions,
            trunk,
            num_views,
            device,
            folder=datamodule.work_dir and datamodule.work_dir / "cached_views",
            made_from=made_from,
            seed=datamodule.sampler_seed,
            views_per_batch=16 if device.type == "cpu" else 64,
            num_workers=datamodule.num_workers,
        )


def identity_of(describer: FrozenFeatures) -> dict[str, Any]:
    """What tells the frozen part of a describer from others: its kind, settings and digest of its weights."""
    encoder, trained = describer.encoder, {name for name, one in describer.named_parameters() if one.requires_grad}
    return {"encoder": type(encoder).__name__, **encoder.settings, "weights": digest_of_weights(describer, trained)}


def _is_made_from(folder: Path, made_from: str) -> bool:
    """Whether a whole bank that was made from the same lies in a folder."""
    file = folder / "counts.npz"
    if not file.is_file():
        return False
    with np.load(file) as stored:
        return str(stored["made_from"]) == made_from


def _write(folder: Path, parts: Iterable[tuple[torch.Tensor, torch.Tensor]], made_from: str) -> None:
    """Write tokens ``(T, D)`` half and counts ``(B, V)`` of regions, part by part, in place of what is there."""
    (folder / "counts.npz").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    counts, width = [], 0
    with (folder / "tokens.bin").open("wb") as stream:
        for tokens, of_views in parts:
            tokens.contiguous().numpy().tofile(stream)
            counts.append(of_views.numpy())
            width = tokens.shape[1]
    with whole_file(folder / "counts.npz") as unfinished:
        np.savez(unfinished, counts=np.concatenate(counts), width=width, made_from=made_from)


def _read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens ``(T, D)`` half, mapped from their file, and ``starts`` ``(R, V + 1)`` long, see :class:`ViewBank`."""
    with np.load(folder / "counts.npz") as stored:
        counts, width = torch.from_numpy(stored["counts"]), int(stored["width"])
    ends, total = counts.flatten().cumsum(0).reshape(counts.shape), int(counts.sum())
    tokens = torch.from_file(str(folder / "tokens.bin"), shared=False, size=total * width, dtype=torch.float16)
    return tokens.view(total, width), torch.cat([ends[:, :1] - counts[:, :1], ends], dim=1)


class _ManyViews(Dataset):
    """The regions with another number of views per item, the same views each time."""

    def __init__(self, regions: TrainRegions, num_views: int, seed: int) -> None:
        self.regions, self.num_views, self.seed = regions, num_views, seed

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: int) -> RegionViewBatch:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed * 1_000_003 + index)
            return self.regions.with_views(index, self.num_views)


def _attended_tokens(batch: RegionViewBatch, trunk: Trunk, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
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
