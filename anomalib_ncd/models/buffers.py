# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Buffers whose size depends on the data that they were fitted to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def make_room(module: nn.Module, names: Iterable[str], state_dict: dict[str, Any], prefix: str) -> None:
    """Give buffers the sizes that they have in a state, before it is loaded.

    Args:
        module: Owns the buffers.
        names: Names of the buffers.
        state_dict: The state; gets empty buffers where it has none, as those from before a module existed.
        prefix: What the module's names begin with in it.
    """
    for name in names:
        own = getattr(module, name)
        saved = state_dict.setdefault(prefix + name, own[:0])
        if saved.shape != own.shape:
            setattr(module, name, saved.new_empty(saved.shape, device=own.device))
