# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest

from anomalib_ncd.models.class_slots import ClassSlots


def test_slots_are_numbered_and_named():
    slots = ClassSlots(("dent", "hole"), 3)
    assert (slots.num_base, slots.num_classes, slots.num_outputs) == (2, 3, 5)
    assert slots.names == slots.default_names == ["normal", "class_1", "class_2"]
    assert ClassSlots((), 3, has_normal=False).names == ["class_1", "class_2", "class_3"]
    assert slots.named(["good", "a", "a"]).names == ["good", "a", "a"]
    assert slots.named(["good", "a", "a"]).default_names == slots.names


def test_new_slots_go_on_from_the_highest_number():
    assert ClassSlots((), 3).extended(2).names == ["normal", "class_1", "class_2", "class_3", "class_4"]
    numbered = ClassSlots((), 2, ("dent", "class_5"), has_normal=False, numbers=(2, 5))
    assert numbered.default_names == ["class_2", "class_5"]
    assert numbered.extended(1).names == ["dent", "class_5", "class_6"]
    assert numbered.extended(1).default_names == ["class_2", "class_5", "class_6"]


def test_what_is_not_known_yet_is_said():
    slots = ClassSlots()
    assert (slots.base_names, slots.num_base, slots.num_outputs) == (None, 0, 1)
    for ask in (lambda: slots.num_classes, lambda: slots.names, lambda: slots.default_names):
        with pytest.raises(ValueError, match=r"is 'auto' and not known yet.*load a checkpoint, or give a number"):
            ask()


@pytest.mark.parametrize("names", [["a", ""], ["a"], ["a", "b", "c"], "ab"])
def test_there_is_one_name_per_slot(names):
    with pytest.raises(ValueError, match="must hold 2 names that aren't empty"):
        ClassSlots((), 2).named(names)


def test_names_do_not_hold_what_parts_them():
    with pytest.raises(ValueError, match=r"must not hold ';'.*\['a;b', 'c'\]"):
        ClassSlots((), 2).named(["a;b", "c"])


@pytest.mark.parametrize(
    "slots", [ClassSlots(), ClassSlots(("a",), 2, ("x", "y"), has_normal=False, numbers=(1, 4)), ClassSlots((), 1)]
)
def test_plain_data_and_back(slots):
    plain = slots.plain()
    assert not any(isinstance(value, tuple) for value in plain.values())
    assert ClassSlots.from_plain(plain) == slots


def test_a_number_of_classes_is_asked_for():
    assert ClassSlots.asked_for("auto") == ClassSlots()
    assert ClassSlots.asked_for(3) == ClassSlots(num_novel=3)
    for wrong in (0, "many", 2.0):
        with pytest.raises(ValueError, match=r"`num_novel_classes` must be at least 1 .* or 'auto', got"):
            ClassSlots.asked_for(wrong)


def test_example_of_class_slots():
    slots = ClassSlots(("dent",), num_novel=3)
    assert (slots.num_outputs, slots.names) == (4, ["normal", "class_1", "class_2"])
    assert slots.named(["good", "scratch", "scratch"]).names == ["good", "scratch", "scratch"]
