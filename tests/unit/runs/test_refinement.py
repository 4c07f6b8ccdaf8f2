# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.results.corrections import Correction
from anomalib_ncd.runs.refinement import ClassPlan, follow

BOX = (0.0, 0.0, 8.0, 8.0)
SLOTS = ["normal", "class_1", "class_2", "class_4"]


def plan_of(names=None, rows=4):
    prior = np.full((rows, len(SLOTS)), 0.1)
    prior[np.arange(rows), np.arange(rows) % 4] = 0.7
    return ClassPlan(list(SLOTS), list(names or SLOTS), prior)


def said(name=None, *excluded, image="a"):
    return Correction(image, BOX, name, excluded)


def test_a_class_is_found_by_its_slot_or_its_name():
    plan = plan_of(["normal", "dent", "scratch", "dent"])
    assert plan.find("class_1") == plan.find("dent") == ["class_1", "class_4"]
    assert plan.find("class_2") == ["class_2"]
    assert plan.find("hole") == []
    assert plan.normal_slot == 0


def test_new_classes_follow_and_normal_comes_first():
    plan = ClassPlan(["class_1", "class_4"], ["class_1", "dent"], np.full((3, 2), 0.5))
    assert plan.add("hole") == ["class_5"]
    assert plan.add("class_9") == ["class_6"]
    assert plan.normal_slot is None
    assert plan.add("normal") == ["normal"]
    assert plan.slot_names == ["normal", "class_1", "class_4", "class_5", "class_6"]
    assert plan.class_names == ["normal", "class_1", "dent", "hole", "class_6"]
    assert plan.normal_slot == 0
    assert plan.prior.tolist() == [[0, 0.5, 0.5, 0, 0]] * 3
    assert plan.allowed.all()
    assert plan.numbers() == (1, 4, 5, 6)


def test_corrections_allow_what_they_say():
    plan = plan_of(["normal", "dent", "scratch", "dent"])
    words = [said("dent"), said("hole"), said(None, "dent", "normal"), said("scratch")]
    plan.take(words, [0, 1, 2, None])
    assert plan.allowed.tolist() == [
        [False, True, False, True, False],
        [False, False, False, False, True],
        [False, False, True, False, True],
        [True, True, True, True, True],
    ]
    assert plan.slots_of == {"dent": ["class_1", "class_4"], "hole": ["class_5"]}
    plan.keep(np.array([True, False, True, True, True]))
    settled = plan.settled([*words, said("gone")], [0, 1, 2, None, None])
    assert [one.class_name for one in settled] == ["class_4", "class_5", None, "scratch", "gone"]
    assert settled[2].excluded == ("class_4", "normal")


def test_a_class_of_an_image_needs_no_region():
    plan = plan_of()
    words = [Correction("a", None, "hole"), Correction("b", None, "class_2")]
    plan.take(words, [None, None])
    assert plan.slot_names[-1] == "class_5"
    assert plan.of_images == {"class_5", "class_2"}
    assert plan.allowed.all()
    assert [one.class_name for one in plan.settled(words, [None, None])] == ["class_5", "class_2"]


def test_a_region_of_no_class_is_refused():
    with pytest.raises(ValueError, match=r"\[0.0, 0.0, 8.0, 8.0\] of 'a' is said to be of no class"):
        plan_of().take([said(None, *SLOTS)], [0])


def test_classes_are_merged_and_split_to_a_number():
    rows = np.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]] + np.eye(8)[:, :4] * 0.3
    slots = np.repeat(np.arange(4), 2)
    fewer = ClassPlan(list(SLOTS), list(SLOTS), np.eye(4)[slots])
    fewer.recut(rows, slots, 3)
    assert len(set(fewer.class_names)) == 3
    assert fewer.class_names[0] == "normal"
    more = ClassPlan(list(SLOTS), list(SLOTS), np.eye(4)[slots])
    more.recut(rows, slots, 5)
    assert more.slot_names == [*SLOTS, "class_5"]
    assert more.prior.sum(axis=1).tolist() == [1] * 8
    assert more.prior[:, 4].sum() == 1


def test_corrections_follow_to_the_classes_of_another_run():
    plan = plan_of(["normal", "dent", "class_2", "class_4"])
    words = [
        *[said("class_7", image=image) for image in "ab"],  # both lie in class_2
        said("class_8", image="c"),  # was called dent
        said("class_9", image="d"),  # a class of its own
        said("normal", image="e"),
        said(None, "class_8", "class_3", image="f"),
        said(None, "class_3", image="g"),
    ]
    rows = [2, 2, 3, 0, 0, 1, 1]
    followed = follow(words, rows, plan, {"class_8": "dent"})
    assert [one.class_name for one in followed] == ["class_2", "class_2", "dent", "class_14", "normal", None]
    assert followed[-1].excluded == ("dent",)
