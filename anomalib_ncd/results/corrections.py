# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a user says of regions: ``corrections.json``, which the report saves, names and merges of classes with it.

    {"names": {"class_1": "scratch"}, "same": [["class_2", "class_5"]],
     "regions": [{"image": "dent/003", "box": [10, 20, 74, 84], "class": "class_2"},
                 {"image": "dent/007", "box": [0, 5, 64, 69], "not": ["class_1"]},
                 {"image": "dent/009", "class": "class_2"}]}

Regions go by their image and their box, so that corrections outlive the classes that they were made against. A class
that the run doesn't have is a new one, which the user made. Without a box the image as a whole is of the class, such as
one in which nothing was found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_ncd.regions.classes.prediction import CLASS_SEPARATOR
from anomalib_ncd.results.class_names import PARTS, read_saved
from anomalib_ncd.results.class_tree import FEWEST, MOST
from anomalib_ncd.results.run_results import RunResults

FILE_NAME = "corrections.json"
SAME_OVERLAP = 1 / 3  # of two boxes of one size, that half of each lies in the other
_NUMBER = re.compile(r"class_(\d+)")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Correction:
    """What is said of a region, known by the key of its image and its box in image pixels; of the image without one.

    Its class is a slot, a name of the user's, or a new one, ``None`` where that is not said; or classes are excluded.
    """

    image: str
    box_xyxy: Box | None
    class_name: str | None = None
    excluded: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Plain data, as the file holds it."""
        said = {"not": list(self.excluded)} if self.class_name is None else {"class": self.class_name}
        return {"image": self.image, **({} if self.box_xyxy is None else {"box": list(self.box_xyxy)}), **said}


@dataclass(frozen=True)
class Corrections:
    """What a file says."""

    regions: tuple[Correction, ...] = ()  # one correction per region at most
    naming: dict[str, Any] | None = None  # the parts names and same, unchecked, as class_names takes them
    of: str | None = None  # digest of the classes that slots are meant of; None where the file doesn't say
    # Number of classes, *normal* included, that the classes are first merged or split into, see class_tree; None leaves
    # them
    num_classes: int | None = None

    def joined(self, later: Sequence[Correction]) -> Corrections:
        """These corrections and later ones, which count where both speak of a region."""
        said = {(one.image, one.box_xyxy): one for one in (*self.regions, *later)}
        return replace(self, regions=tuple(said.values()))

    def plain(self) -> dict[str, Any]:
        """Plain data, as the file holds it."""
        of = {} if self.of is None else {"of": self.of}
        return {**(self.naming or {}), "regions": [one.plain() for one in self.regions], **of}


def read_corrections(file: str | Path) -> Corrections:
    """Read a file of corrections.

    ``FileNotFoundError`` if there is no such file; ``ValueError`` if it is none.
    """
    return read_saved(file, _checked)


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection of two boxes over their union."""
    sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return sides[0] * sides[1] / max(sum(areas) - sides[0] * sides[1], 1e-9)


def majority(moves: Counter[tuple[str, str]]) -> dict[str, str]:
    """Find what sources became: the target that most of each went to, where most of the target came from it, too."""
    left, came = Counter[str](), Counter[str]()
    for (source, target), count in moves.items():
        left[source] += count
        came[target] += count
    return {source: target for (source, target), count in moves.items() if 2 * count > max(left[source], came[target])}


def rows_of(
    corrections: Iterable[Correction], image_keys: Sequence[str], image_of: np.ndarray, boxes_xyxy: np.ndarray
) -> list[int | None]:
    """Find the regions, of images `image_of` ``(R,)`` with boxes ``(R, 4)``, that corrections speak of.

    It is the one whose box overlaps most; ``None`` where none overlaps enough, or a later correction speaks of it.
    """
    regions: dict[str, list[int]] = {}
    for row, image in enumerate(image_of.tolist()):
        regions.setdefault(image_keys[image], []).append(row)
    boxes, found = boxes_xyxy.tolist(), list[int | None]()
    for one in corrections:
        own = [] if one.box_xyxy is None else regions.get(one.image, [])
        shares = ((overlap(one.box_xyxy or (), boxes[row]), row) for row in own)
        best = max(shares, default=(0.0, 0))
        found.append(best[1] if best[0] > SAME_OVERLAP else None)
    last = {row: number for number, row in enumerate(found)}
    return [row if last[row] == number else None for number, row in enumerate(found)]


def rows_of_results(corrections: Iterable[Correction], results: RunResults) -> list[int | None]:
    """:func:`rows_of` a run."""
    batch = results.batch
    return rows_of(corrections, results.image_keys, batch.region_image_index.numpy(), batch.region_box_xyxy.numpy())


def slots_said(settled: Iterable[Correction], results: RunResults, slot_names: Sequence[str]) -> torch.Tensor:
    """Slot of each image ``(B,)`` that corrections speak of as a whole, -1 of the others."""
    said = {one.image: slot_names.index(one.class_name) for one in settled if one.box_xyxy is None and one.class_name}
    return torch.tensor([said.get(key, -1) for key in results.image_keys])


def next_number(slot_names: Sequence[str]) -> int:
    """Number of the next new class."""
    found = (_NUMBER.fullmatch(name) for name in slot_names)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _checked(given: Any) -> Corrections:
    """Check what a file holds; names and merges are checked where the classes are known."""
    if not isinstance(given, dict) or set(given) - PARTS:
        msg = 'Expected {"names": {…}, "same": [[…], …], "regions": [{…}, …]} and nothing else.'
        raise ValueError(msg)
    regions = given.get("regions", [])
    if not isinstance(regions, list):
        msg = f'"regions" must be a list, got {regions!r}.'
        raise ValueError(msg)  # noqa: TRY004 - a value of a file
    naming = {part: given[part] for part in ("names", "same") if part in given}
    number = given.get("num_classes")
    if number is not None and (not isinstance(number, int) or not FEWEST <= number <= MOST):
        msg = f'"num_classes" must be a whole number from {FEWEST} to {MOST}, got {number!r}.'
        raise ValueError(msg)
    last = {(one.image, one.box_xyxy): one for one in map(_checked_region, regions)}
    return Corrections(tuple(last.values()), naming or None, given.get("of"), number)


def _checked_region(given: Any) -> Correction:
    said = given if isinstance(given, dict) else {}
    image, box, name, excluded = (said.get(key) for key in ("image", "box", "class", "not"))
    is_box = box is None or (
        isinstance(box, list) and len(box) == 4 and all(isinstance(edge, int | float) for edge in box)
    )
    others: list[Any] = excluded if isinstance(excluded, list) else []
    names = others if name is None else [name]
    is_named = bool(names) and all(isinstance(one, str) and one.split() for one in names)
    if (
        not isinstance(image, str)
        or not is_box
        or not is_named
        or (name is None) == (excluded is None)
        or (box is None and name is None)
    ):
        msg = f'A region needs "image", "box" of four numbers, and "class" or "not"; an image, "class": {given!r}.'
        raise ValueError(msg)
    if any(CLASS_SEPARATOR in one for one in names):
        msg = f"A class of {image!r} holds {CLASS_SEPARATOR!r}, which parts names in tables: {names!r}; drop it."
        raise ValueError(msg)
    tidy = tuple(" ".join(one.split()) for one in names)
    box_xyxy: Any = None if box is None else tuple(float(edge) for edge in box)
    return Correction(image, box_xyxy, tidy[0] if name is not None else None, () if name is not None else tidy)
