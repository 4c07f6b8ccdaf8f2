# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest

from anomalib_ncd.results.corrections import Correction, Corrections, next_number, read_corrections, rows_of

DENT = {"image": "dent/3", "box": [0, 0, 8, 8], "class": " big   dent "}
NOT = {"image": "dent/4", "box": [0, 0, 8, 8], "not": ["class_1"]}


def read(tmp_path, content):
    file = tmp_path / "corrections.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_corrections(file)


def test_a_file_is_read_and_written(tmp_path):
    names = {"names": {"class_1": "dent"}, "same": []}
    found = read(tmp_path, {**names, "regions": [DENT, NOT], "of": "abc"})
    box = (0.0, 0.0, 8.0, 8.0)
    assert found.regions == (Correction("dent/3", box, "big dent"), Correction("dent/4", box, None, ("class_1",)))
    assert (found.naming, found.of) == (names, "abc")
    assert read(tmp_path, found.plain()) == found
    assert read(tmp_path, {}) == Corrections()


def test_the_last_word_on_a_region_counts(tmp_path):
    found = read(tmp_path, {"regions": [DENT, {**DENT, "class": "hole"}]})
    assert [one.class_name for one in found.regions] == ["hole"]
    later = Correction("dent/3", (0.0, 0.0, 8.0, 8.0), "crack")
    other = Correction("dent/3", (9.0, 0.0, 20.0, 8.0), "crack")
    assert found.joined([later, other]).regions == (later, other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no valid JSON"),
        ({"region": []}, "and nothing else"),
        ([], "and nothing else"),
        ({"regions": {}}, "must be a list"),
        ({"regions": [{**DENT, "box": [1, 2]}]}, "four numbers"),
        ({"regions": [{**DENT, "not": ["a"]}]}, 'and "class" or "not"'),
        ({"regions": [{**DENT, "class": " "}]}, 'and "class" or "not"'),
        ({"regions": [{"image": "dent/3", "not": ["a"]}]}, 'an image, "class"'),
        ({"regions": [{**DENT, "class": "a;b"}]}, "holds ';'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_without_a_box_it_is_the_image(tmp_path):
    found = read(tmp_path, {"regions": [DENT, {"image": "dent/3", "class": "hole"}]})
    assert found.regions[1] == Correction("dent/3", None, "hole")
    assert read(tmp_path, found.plain()) == found
    boxes = np.array([[0.0, 0.0, 8.0, 8.0]])
    assert rows_of(found.regions, ["dent/3"], np.array([0]), boxes) == [0, None]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="save it from the report"):
        read_corrections(tmp_path / "none.json")


def test_regions_are_found_by_image_and_box():
    keys, image_of = ["a", "b"], np.array([0, 0, 1])
    boxes = np.array([[0, 0, 10, 10], [0, 0, 100, 100], [0, 0, 10, 10]], dtype=float)

    def find(*said):
        return rows_of([Correction(image, box, "x") for image, box in said], keys, image_of, boxes)

    assert find(("a", (1, 1, 11, 11)), ("a", (0, 0, 90, 100)), ("b", (0, 0, 10, 10))) == [0, 1, 2]
    assert find(("a", (200, 0, 210, 10)), ("b", (8, 8, 18, 18)), ("c", (0, 0, 10, 10))) == [None] * 3
    assert find(("b", (0, 0, 10, 10)), ("b", (1, 0, 11, 10))) == [None, 2]  # the last word counts


def test_new_classes_get_the_next_number():
    assert next_number(["normal", "class_2", "class_7", "class_x"]) == 8
    assert next_number(["normal"]) == 1
