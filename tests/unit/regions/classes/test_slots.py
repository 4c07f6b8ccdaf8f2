# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from anomalib_ncd.regions.classes.slots import first_slots


def test_slots_of_one_name_have_one_first_slot():
    assert first_slots(["normal", "scratch", "dent", "scratch"]) == [0, 1, 2, 1]
    assert first_slots(["a", "a", "a"]) == [0, 0, 0]
    assert first_slots([]) == []
