# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the slots of a model stand for: base classes, *normal*, and the classes that were discovered."""

from __future__ import annotations

from collections.abc import Sequence

from anomalib_ncd.models.checkpoints import checked_class_names


class ClassSlotsMixin:
    """Names of the classes of ``AnomalyNcd``.

    Attributes:
        base_class_names: Names of the base classes; ``None`` before a datamodule or a checkpoint was seen.
        has_normal_slot: Whether the first novel slot is *normal*.
        made_from_clusters: Whether the prototypes are centres of clusters, which training can't go on from.
    """

    base_class_names: list[str] | None = None
    has_normal_slot: bool = True
    made_from_clusters: bool = False
    num_novel_classes: int
    _class_names: list[str] | None = None

    @property
    def num_base_classes(self) -> int:
        """Number of labelled base classes; they are known once a datamodule or a checkpoint was seen."""
        return len(self.base_class_names or [])

    @property
    def novel_class_names(self) -> list[str]:
        """Names that discovery gives: ``normal`` in slot 0, if there is such a slot, then ``class_1`` and so on."""
        if not self.has_normal_slot:
            return [f"class_{i + 1}" for i in range(self.num_novel_classes)]
        return ["normal", *(f"class_{i}" for i in range(1, self.num_novel_classes))]

    @property
    def class_names(self) -> list[str]:
        """Name of each slot, as given by the user; slots of one name are one class."""
        return list(self._class_names or self.novel_class_names)

    @class_names.setter
    def class_names(self, names: Sequence[str]) -> None:
        self._class_names = checked_class_names(names, self.num_novel_classes)
