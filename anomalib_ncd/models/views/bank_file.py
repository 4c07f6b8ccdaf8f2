# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Cached tokens on disk: written region by region, taken up again where it stopped, read through a memory map."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_ncd.regions.writing import write_file

logger = logging.getLogger(__name__)

COUNT_TYPE = np.dtype("<i4")
TOKEN_BYTES = 2


class BankFile:
    """The files of a view bank.

    ``made_from.json`` says what the bank was made from, ``counts.bin`` how many tokens each view has, and
    ``tokens.bin`` holds the tokens, in half precision. Tokens are written before their counts, so that whatever has
    counts is whole, even after a kill in the middle of a write. What lies in the folder is gone on with where it was
    made from the same, and is thrown away otherwise.
    """

    def __init__(self, folder: str | Path, made_from: dict[str, Any], num_views: int) -> None:
        self.folder = Path(folder)
        self.num_views = num_views
        self._tokens_file = self.folder / "tokens.bin"
        self._counts_file = self.folder / "counts.bin"
        self._width_file = self.folder / "width.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim({**made_from, "num_views": num_views})

    @property
    def num_regions(self) -> int:
        """Regions that are done."""
        return len(self._counts())

    def append(self, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        """Add regions; what was there before stays whole if the disk is full.

        Args:
            tokens: ``(T, D)`` half, the tokens of all their views one after the other.
            counts: ``(B, V)`` number of tokens of each view.
        """
        if not self._width_file.is_file():
            write_file(self._width_file, json.dumps(tokens.shape[1]))
        for file, values in (
            (self._tokens_file, tokens.contiguous().numpy()),
            (self._counts_file, counts.numpy().astype(COUNT_TYPE)),
        ):
            with file.open("ab") as stream:
                values.tofile(stream)

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens ``(T, D)`` half, mapped from the file, and ``starts`` ``(R, V + 1)`` long, see :class:`ViewBank`."""
        counts = torch.from_numpy(self._counts().astype(np.int64))
        ends = counts.flatten().cumsum(0).reshape(counts.shape)
        width, total = self._width(), int(counts.sum())
        tokens = torch.zeros(0, dtype=torch.float16)
        if total:
            tokens = torch.from_file(str(self._tokens_file), shared=False, size=total * width, dtype=torch.float16)
        return tokens.view(total, width), torch.cat([ends[:, :1] - counts[:, :1], ends], dim=1)

    def _claim(self, made_from: dict[str, Any]) -> None:
        """Take over what was made from the same, without a last region that isn't whole; throw away the rest."""
        file = self.folder / "made_from.json"
        wanted = json.dumps(made_from, indent=2, sort_keys=True)
        if file.is_file() and file.read_text(encoding="utf-8") == wanted:
            self._drop_unfinished()
            return
        if file.is_file():
            logger.info("The cached views in %s were made from something else; they are made anew.", self.folder)
        # The description comes last: without it, nothing that lies here counts.
        for old in (file, self._counts_file, self._tokens_file, self._width_file):
            old.unlink(missing_ok=True)
        write_file(file, wanted)

    def _drop_unfinished(self) -> None:
        """Cut both files back to the last region that is whole in both."""
        counts, row_bytes = self._counts(), self._width() * TOKEN_BYTES
        ends = counts.sum(axis=1, dtype=np.int64).cumsum() * row_bytes
        present = self._tokens_file.stat().st_size if self._tokens_file.is_file() else 0
        num_whole = int((ends <= present).sum())
        for file, size in (
            (self._counts_file, num_whole * self.num_views * COUNT_TYPE.itemsize),
            (self._tokens_file, int(ends[num_whole - 1]) if num_whole else 0),
        ):
            if file.is_file() and file.stat().st_size != size:
                with file.open("r+b") as stream:
                    stream.truncate(size)

    def _counts(self) -> np.ndarray:
        """Number of tokens per region and view, ``(R, V)``."""
        if not self._counts_file.is_file():
            return np.zeros((0, self.num_views), COUNT_TYPE)
        values = np.fromfile(self._counts_file, COUNT_TYPE)
        return values[: len(values) // self.num_views * self.num_views].reshape(-1, self.num_views)

    def _width(self) -> int:
        """Width of the tokens; 0 before the first are there."""
        return int(json.loads(self._width_file.read_text(encoding="utf-8"))) if self._width_file.is_file() else 0
