# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Which classes there are once a user has corrected regions, and which of them each region may be of."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from anomalib_ncd.regions.classes.prediction import first_slots
from anomalib_ncd.results.class_names import NORMAL
from anomalib_ncd.results.class_tree import class_tree
from anomalib_ncd.results.corrections import Correction, majority, next_number

_DEFAULT_NAME = re.compile(r"class_\d+")


@dataclass
class ClassPlan:
    """Classes of a run, and those that its user makes."""

    slot_names: list[str]  # name of each slot as discovery numbers it, *normal* first where there is such a slot
    class_names: list[str]  # what each slot is called; slots of one name are one class
    prior: np.ndarray  # (R, K) float, what clusters say of each region
    allowed: np.ndarray = field(init=False)  # (R, K) bool, the classes that each region may be of
    # Slots of each class that corrections speak of, by what they call it
    slots_of: dict[str, list[str]] = field(default_factory=dict)
    of_images: set[str] = field(default_factory=set)  # slots of classes that are said of whole images

    def __post_init__(self) -> None:
        self.allowed = np.ones(self.prior.shape, dtype=bool)

    @property
    def normal_slot(self) -> int | None:
        """Slot of *normal*."""
        return 0 if self.slot_names[:1] == [NORMAL] else None

    def find(self, name: str) -> list[str]:
        """Slots of a class by the name of a slot or the user's; none where the run has no such class."""
        if name in self.slot_names:
            name = self.class_names[self.slot_names.index(name)]
        return [slot for slot, own in zip(self.slot_names, self.class_names, strict=True) if own == name]

    def add(self, name: str) -> list[str]:
        """Make a class that no cluster points to yet; *normal* gets the first slot, others the next number."""
        place = 0 if name == NORMAL else len(self.slot_names)
        slot = NORMAL if name == NORMAL else f"class_{next_number(self.slot_names)}"
        self.slot_names.insert(place, slot)
        self.class_names.insert(place, slot if _DEFAULT_NAME.fullmatch(name) else name)
        self.prior = np.insert(self.prior, place, 0.0, axis=1)
        self.allowed = np.insert(self.allowed, place, True, axis=1)
        return [slot]

    def recut(self, features: np.ndarray, slots: np.ndarray, num_classes: int) -> None:
        """Merge or split classes until there are as many, as the report's tree does.

        Features are ``(R, D)`` float, ``slots`` ``(R,)`` int those that the regions are in; ``num_classes`` counts
        classes that have regions, *normal* included.
        """
        first = np.array(first_slots(self.class_names))
        classes = first[slots]
        tree = class_tree(features, classes, self.normal_slot)
        for one, other in tree.merges[: max(tree.count - num_classes, 0)]:
            name = self.class_names[one]
            self.class_names = [name if first[slot] == other else own for slot, own in enumerate(self.class_names)]
            first[first == other] = one
        number_of: dict[int, int] = {}
        for step, (of, leaving) in enumerate(tree.splits[: max(num_classes - tree.count, 0)]):
            own = np.array([number_of[of]]) if of in number_of else np.flatnonzero(first == of)
            (added,) = self.add(f"class_{next_number(self.slot_names)}")
            number_of[int(classes.max()) + 1 + step] = self.slot_names.index(added)
            self.prior[leaving, -1] = self.prior[np.ix_(leaving, own)].sum(axis=1)
            self.prior[np.ix_(leaving, own)] = 0

    def take(self, corrections: Sequence[Correction], rows: Sequence[int | None]) -> None:
        """Note what corrections of regions say; those without a region are passed over.

        ``ValueError`` if a region is left without a class.
        """
        for one, row in zip(corrections, rows, strict=True):
            if (row is not None or one.box_xyxy is None) and one.class_name is not None:
                if one.class_name not in self.slots_of:
                    self.slots_of[one.class_name] = self.find(one.class_name) or self.add(one.class_name)
                if one.box_xyxy is None:
                    self.of_images.add(self.slots_of[one.class_name][0])
        for one, row in zip(corrections, rows, strict=True):
            if row is None:
                continue
            names = [one.class_name] if one.class_name is not None else list(one.excluded)
            slots = {slot for name in names for slot in self.slots_of.get(name) or self.find(name)}
            is_named = np.array([slot in slots for slot in self.slot_names])
            self.allowed[row] = is_named if one.class_name is not None else ~is_named
            if not self.allowed[row].any():
                box = list(one.box_xyxy or ())
                msg = f"The region {box} of {one.image!r} is said to be of no class; say which it is of."
                raise ValueError(msg)

    def keep(self, is_kept: np.ndarray) -> None:
        """Drop slots, such as those of classes that no region is of any more."""
        self.slot_names = [name for name, kept in zip(self.slot_names, is_kept, strict=True) if kept]
        self.class_names = [name for name, kept in zip(self.class_names, is_kept, strict=True) if kept]
        self.prior, self.allowed = self.prior[:, is_kept], self.allowed[:, is_kept]

    def numbers(self) -> tuple[int, ...]:
        """Number of each class but *normal*."""
        return tuple(int(name.removeprefix("class_")) for name in self.slot_names if name != NORMAL)

    def settled(self, corrections: Sequence[Correction], rows: Sequence[int | None]) -> list[Correction]:
        """The corrections with their classes as the slots that they have now."""

        def slot_of(name: str) -> str:
            slots = self.slots_of.get(name) or self.find(name)
            return next((slot for slot in slots if slot in self.slot_names), name)

        settled = []
        for one, row in zip(corrections, rows, strict=True):
            name = None if one.class_name is None else slot_of(one.class_name)
            said = replace(one, class_name=name, excluded=tuple(map(slot_of, one.excluded)))
            settled.append(said if row is not None or one.box_xyxy is None else one)
        return settled


def follow(
    corrections: Sequence[Correction], rows: Sequence[int | None], plan: ClassPlan, names: dict[str, str]
) -> list[Correction]:
    """Say corrections that were made against other clusters of the classes that the run has now.

    A class that is known by a name of the user's keeps it. One that only had a number is the class that most of its
    regions are in, if most of the corrected regions there are its own; else it is made anew. Returns the corrections;
    what they exclude is dropped where the class isn't known by a name. ``rows`` are the regions of the corrections, and
    ``names`` what the slots were called when these were made.
    """
    moves = Counter(
        (one.class_name, plan.slot_names[int(plan.prior[row].argmax())])
        for one, row in zip(corrections, rows, strict=True)
        if row is not None and one.class_name is not None
    )
    now = majority(moves)

    def meant(name: str) -> str:
        called = names.get(name, name)
        if name == NORMAL or (not _DEFAULT_NAME.fullmatch(called)):
            return called
        return now.get(name, f"class_{next_number(plan.slot_names) + int(name.removeprefix('class_'))}")

    followed = []
    for one in corrections:
        excluded = tuple(meant(name) for name in one.excluded if plan.find(meant(name)))
        if one.class_name is not None:
            followed.append(Correction(one.image, one.box_xyxy, meant(one.class_name)))
        elif excluded:
            followed.append(Correction(one.image, one.box_xyxy, None, excluded))
    return followed
