# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How images are read and regions are cut: the one description that a run, its checkpoint and its artefact share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

RegionMethod = Literal["elements", "mebin", "threshold", "masks"]


@dataclass(frozen=True)
class RegionSettings:
    """How regions are found and cut; with ``method="mebin"`` the defaults are the paper's.

    Attributes:
        method: How masks are found: ``"elements"`` for one region for each element that stands out, ``"mebin"`` as in
            the paper, ``"threshold"`` for one threshold for all maps, ``"masks"`` for maps that are masks, where all
            but 0 is anomalous. With all but ``"mebin"`` an image without anything has no region.
        threshold: What ``"threshold"`` takes, in units of the maps.
        sample_rate: Step of MEBin's threshold sweep, in units of 1/255 of the score range.
        min_interval_len: Shortest run of equal component counts that MEBin takes as stable.
        erosion_size: Side of MEBin's erosion kernel in map pixels; 0 for none.
        padding_ratio: Widening of a region around the defect's bounding box.
        merge_distance_ratio: What is nearer than this share of the longer image side is merged: the crops in MEBin, the
            masks of elements otherwise.
        min_size_ratio: Least half side of a region as a share of the longer image side.
        bit_depth: Bits that are used in images of 16-bit files, 9 to 16: 12 for a camera whose brightest value is
            4,095. Images of 8-bit files stay as they are.

    Raises:
        ValueError: If a value is of another type or out of its range.

    Example:
        >>> RegionSettings.from_dict(RegionSettings(padding_ratio=0.2).to_dict()).padding_ratio
        0.2
    """

    method: RegionMethod = "elements"
    threshold: float | None = None
    sample_rate: int = 4
    min_interval_len: int = 4
    erosion_size: int = 6
    padding_ratio: float = 0.1
    merge_distance_ratio: float = 0.01
    min_size_ratio: float = 0.1
    bit_depth: int = 16

    def __post_init__(self) -> None:
        if self.method not in get_args(RegionMethod):
            msg = f"`method` must be one of {get_args(RegionMethod)}, got {self.method!r}."
            raise ValueError(msg)
        if (self.method == "threshold") != (self.threshold is not None):
            got = f"{self.threshold} with {self.method!r}"
            msg = f"`threshold` must be given with the method 'threshold' alone, got {got}."
            raise ValueError(msg)
        if self.threshold is not None:
            self._check("threshold", int | float, -math.inf, math.inf)
        for name, lowest, highest in (
            ("sample_rate", 1, 255),
            ("min_interval_len", 1, 256),
            ("erosion_size", 0, math.inf),
            ("bit_depth", 9, 16),
        ):
            self._check(name, int, lowest, highest)
        for name in ("padding_ratio", "merge_distance_ratio", "min_size_ratio"):
            self._check(name, int | float, 0, math.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for checkpoints and manifests."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RegionSettings:
        """Settings of plain data; ``ValueError`` if one is missing, unknown or out of its range."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            found = sorted(values) if isinstance(values, Mapping) else values
            msg = f"Settings of regions must be {sorted(names)}, got {found}; they are of another version."
            raise ValueError(msg)
        return cls(**values)

    def _check(self, name: str, kind: Any, lowest: float, highest: float) -> None:
        """Refuse a value of another type or out of its range."""
        value = getattr(self, name)
        is_kind = isinstance(value, kind) and (isinstance(value, bool) == (kind is bool))
        if not is_kind or not lowest <= value <= highest or not math.isfinite(value):
            wanted = getattr(kind, "__name__", "number")
            msg = f"`{name}` must be of type {wanted} from {lowest} to {highest}, got {value!r}."
            raise ValueError(msg)


PAPER_REGIONS = RegionSettings(method="mebin")
"""How regions are found and cut in the paper."""
