# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from anomalib_ncd.results.class_names import read_class_names, resolve_class_names

SLOTS = ["normal", "class_1", "class_2", "class_3", "class_4"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, SLOTS),
        ({"names": {}, "same": []}, SLOTS),
        ({"names": {"class_2": "dent"}}, ["normal", "class_1", "dent", "class_3", "class_4"]),
        ({"names": {"class_2": "  deep \n dent "}}, ["normal", "class_1", "deep dent", "class_3", "class_4"]),
        # Merged classes take the one given name, else that of their first slot.
        ({"same": [["class_4", "class_2"]]}, ["normal", "class_1", "class_2", "class_3", "class_2"]),
        (
            {"names": {"class_4": "dent"}, "same": [["class_2", "class_4"]]},
            ["normal", "class_1", "dent", "class_3", "dent"],
        ),
        # One name for two classes makes them one; chains of groups are one group.
        ({"names": {"class_1": "a", "class_3": "a"}}, ["normal", "a", "class_2", "a", "class_4"]),
        (
            {"same": [["class_1", "class_2"], ["class_3", "class_4"], ["class_4", "class_1"]]},
            ["normal", "class_1", "class_1", "class_1", "class_1"],
        ),
        # Classes may swap their names.
        (
            {"names": {"class_1": "class_2", "class_2": "class_1"}},
            ["normal", "class_2", "class_1", "class_3", "class_4"],
        ),
        # A defect becomes normal where it is said.
        ({"same": [["class_3", "normal"]]}, ["normal", "class_1", "class_2", "normal", "class_4"]),
        (
            {"names": {"normal": "fine"}, "same": [["class_3", "normal"]]},
            ["fine", "class_1", "class_2", "fine", "class_4"],
        ),
    ],
)
def test_names_of_slots(given, expected):
    assert resolve_class_names(given, SLOTS) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r'Expected \{"names"'),
        ({"name": {}}, "and nothing else"),
        ({"names": ["a"]}, '"names" must map classes to names'),
        ({"names": {"class_9": "a"}}, "'class_9', but the classes of the run are normal, class_1, "),
        ({"names": {"class_1": "  "}}, "name of 'class_1' is empty"),
        (
            {"names": {"class_1": "dent; deep"}},
            "name of 'class_1' holds ';', which parts names in tables: 'dent; ",
        ),
        ({"names": {"class_1": None}}, "name of 'class_1' is empty"),
        ({"same": [["class_1", "class_7"]]}, "\"same\" speaks of 'class_7'"),
        ({"same": [["class_1", ["class_2"]]]}, r"\"same\" speaks of \['class_2'\]"),
        ({"same": [["class_1"]]}, "lists of two classes or more"),
        ({"same": ["class_1"]}, "lists of two classes or more"),
        ({"same": {"class_1": "class_2"}}, "lists of two classes or more"),
        (
            {"names": {"class_1": "a", "class_2": "b"}, "same": [["class_1", "class_2"]]},
            "the names 'a' and 'b'; keep one",
        ),
        ({"names": {"class_1": "normal"}}, r'that of another class, normal.*\["normal", "class_1"\]'),
        ({"names": {"class_1": "class_2"}}, "that of another class, class_2"),
        ({"names": {"normal": "ok", "class_1": "ok"}}, "that of another class, normal"),
        ({"names": {"class_1": "dent"}, "same": [["normal", "class_1"]]}, "normal, so they can't be called 'dent'"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        resolve_class_names(given, SLOTS)


def test_without_a_normal_slot_any_class_may_be_called_normal():
    assert resolve_class_names({"names": {"class_2": "normal"}}, ["class_1", "class_2"]) == ["class_1", "normal"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files_are_read(tmp_path, encoding):
    file = tmp_path / "class_names.json"
    file.write_text(json.dumps({"names": {"class_1": "Kratzer ü"}}, ensure_ascii=False), encoding=encoding)
    assert read_class_names(file, SLOTS)[1] == "Kratzer ü"


def test_files_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "class_names.json"
    with pytest.raises(FileNotFoundError, match=r"no file .*class_names.json; save it from the report"):
        read_class_names(file, SLOTS)
    file.write_text("{'names': }")
    with pytest.raises(ValueError, match=r"class_names.json is no valid JSON"):
        read_class_names(file, SLOTS)
    file.write_bytes(b'{"names": {"class_1": "\xff"}}')
    with pytest.raises(ValueError, match=r"class_names.json is no valid JSON"):
        read_class_names(file, SLOTS)
    file.write_text('{"names": {"class_9": "a"}}')
    with pytest.raises(ValueError, match=r"class_names.json: \"names\" speaks of 'class_9'"):
        read_class_names(file, SLOTS)


def test_example_of_resolve_class_names():
    given = {"names": {"class_2": "dent"}, "same": [["class_1", "class_2"]]}
    assert resolve_class_names(given, ["class_1", "class_2"]) == ["dent", "dent"]
