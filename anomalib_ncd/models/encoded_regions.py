# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Regions that are encoded once: for the number of classes, the start of training, rejection and predictions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.region_table import RegionTable

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Describe: TypeAlias = Callable[[NcdBatch], Pair]


def encode_images(describe: Describe, batches: Iterable[NcdBatch]) -> list[NcdBatch]:
    """Describe the regions of images: without pixels, on the CPU, with ``region_feature`` and ``region_reference``."""
    encoded = []
    for batch in batches:
        with torch.no_grad():
            feature, reference = describe(batch)
        described = {"region_feature": feature.float().cpu(), "region_reference": reference.float().cpu()}
        encoded.append(batch.without_pixels().update(**described))
    return encoded


class RegionCache:
    """The regions of the table that was described last, so that they are described once a run."""

    def __init__(self) -> None:
        self._table: RegionTable | None = None
        self._encoded: list[NcdBatch] = []

    def clear(self) -> None:
        """Forget them."""
        self._table, self._encoded = None, []

    def encode(self, describe: Describe, datamodule: NcdDataModule) -> list[NcdBatch]:
        """Describe all regions of a datamodule, whatever process asks, or take them from the last time.

        In single precision and of the views that predictions are made from, as new regions are compared with the
        run's. ``ValueError`` if there is no region.
        """
        table = datamodule.region_table()
        if not len(table):
            msg = (
                f"No region was found in any of {len(table.images)} images; check their anomaly maps, or give another "
                "`score_range` or method of `regions`."
            )
            raise ValueError(msg)
        if self._table is not table:
            self._encoded = encode_images(describe, datamodule.all_images())
            self._table = table
        return [replace(batch) for batch in self._encoded]


def rows_of(encoded: Sequence[NcdBatch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What clusters and rejection take of all regions that :func:`encode_images` has described, else ``ValueError``.

    Features ``(R, D)`` float, scores ``(R,)`` in [0, 1], references ``(R, E)``, and ``(R,)`` long, the image of
    each.
    """
    whole = NcdBatch.collate(encoded)
    reference = given(whole.region_reference, "A batch holds no references of its regions")
    feature = given(whole.region_feature, "The images hold no features of their regions")
    return feature, whole.region_score, reference, whole.region_image_index


def given(rows: torch.Tensor | None, otherwise: str) -> torch.Tensor:
    """What :func:`encode_images` fills in, or an error that says what is lacking."""
    if rows is None:
        msg = f"{otherwise}; pass what `encode_images` returns."
        raise ValueError(msg)
    return rows
