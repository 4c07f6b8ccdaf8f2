# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the outputs of the heads stand for: base classes, *normal*, and the classes that were discovered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from anomalib_ncd.regions.classes.prediction import CLASS_SEPARATOR

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class ClassSlots:
    """Slots of the heads: base classes first, then the novel ones, of which the first may be *normal*."""

    # Names of the base classes; None before a datamodule or a checkpoint was seen
    base_names: tuple[str, ...] | None = None
    num_novel: int | None = None  # number of novel slots, *normal* included; None while it is to be estimated
    # Name that the user gave to each novel slot; slots of one name are one class. None: none yet.
    given_names: tuple[str, ...] | None = None
    has_normal: bool = True  # whether the first novel slot is *normal*
    from_clusters: bool = False  # whether the prototypes are centres of clusters, which training can't go on from
    numbers: tuple[int, ...] | None = None  # number of each discovered class, *normal* not counted; None for 1, 2, 3 …

    @classmethod
    def asked_for(cls, num_novel_classes: int | str) -> ClassSlots:
        """Slots for a number of classes, *normal* included, or ``"auto"``; ``ValueError`` for anything else."""
        if num_novel_classes == AUTO:
            return cls()
        if not isinstance(num_novel_classes, int) or num_novel_classes < 1:
            msg = f"`num_novel_classes` must be at least 1 (normal counts as one) or 'auto', got {num_novel_classes!r}."
            raise ValueError(msg)
        return cls(num_novel=num_novel_classes)

    @property
    def num_base(self) -> int:
        """Number of base classes, 0 while they aren't known."""
        return len(self.base_names or ())

    @property
    def num_classes(self) -> int:
        """Number of novel classes, *normal* included; ``ValueError`` while it is to be estimated."""
        if self.num_novel is None:
            unknown = "`num_novel_classes` is 'auto' and not known yet: training and clustering begin with an estimate"
            msg = f"{unknown}. Do that, load a checkpoint, or give a number."
            raise ValueError(msg)
        return self.num_novel

    @property
    def num_outputs(self) -> int:
        """Number of outputs of a head; one for the novel classes while their number isn't known."""
        return self.num_base + (self.num_novel or 1)

    @property
    def default_names(self) -> list[str]:
        """Names that discovery gives: ``normal`` in slot 0, if there is such a slot, then ``class_1`` and so on."""
        normal = ["normal"] if self.has_normal else []
        numbers = range(1, self.num_classes - len(normal) + 1) if self.numbers is None else self.numbers
        return [*normal, *(f"class_{number}" for number in numbers)]

    @property
    def names(self) -> list[str]:
        """Name of each novel slot."""
        return self.default_names if self.given_names is None else list(self.given_names)

    def named(self, names: Sequence[str]) -> ClassSlots:
        """The slots under names of the user's, one for each; slots of one name are one class.

        ``ValueError`` if there are more or fewer names than slots, or one is empty or holds ``;``.
        """
        given = list(names)
        if isinstance(names, str) or len(given) != self.num_classes or not all(given):
            msg = f"`class_names` must hold {self.num_classes} names that aren't empty, one per slot, got {names!r}."
            raise ValueError(msg)
        if any(CLASS_SEPARATOR in name for name in given):
            msg = f"`class_names` must not hold {CLASS_SEPARATOR!r}, which parts names in tables, got {names!r}."
            raise ValueError(msg)
        return replace(self, given_names=tuple(given))

    def extended(self, num_new: int) -> ClassSlots:
        """The slots with new classes behind them, whose numbers go on from the highest."""
        names, number = self.names, self.num_classes + num_new
        first = 1 + (max(self.numbers, default=0) if self.numbers else self.num_classes - self.has_normal)
        numbers = None if self.numbers is None else (*self.numbers, *range(first, first + num_new))
        more = replace(self, num_novel=number, given_names=None, numbers=numbers)
        return more.named([*names, *more.default_names[len(names) :]])

    def plain(self) -> dict[str, Any]:
        """The slots as plain data for checkpoints."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> ClassSlots:
        """The slots that :meth:`plain` was made from."""
        values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in plain.items()}
        return cls(**values)
