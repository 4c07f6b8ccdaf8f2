# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Slots that share a name, without torch."""

from __future__ import annotations

from collections.abc import Sequence


def first_slots(class_names: Sequence[str]) -> list[int]:
    """Give each slot the first slot of its name.

    Args:
        class_names: Name of each slot.

    Returns:
        One index per slot; a slot whose name is its own has its own index.

    Example:
        >>> first_slots(["normal", "scratch", "dent", "scratch"])
        [0, 1, 2, 1]
    """
    first: dict[str, int] = {}
    return [first.setdefault(name, slot) for slot, name in enumerate(class_names)]
