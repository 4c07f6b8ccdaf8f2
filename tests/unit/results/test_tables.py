# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv

import pytest

from anomalib_ncd.regions.classes.results import ImageResult, RegionResult
from anomalib_ncd.results.tables import COLUMNS, csv_bytes, table_rows, write_tables


def region(*box, area, score, name, confidence, unknown=False):
    return RegionResult(box, area, score, 0, name, confidence, unknown, (1.0,))


RESULTS = [
    ImageResult(
        "a/0.png",
        (60, 80),
        1,
        "dent",
        0.6,
        classes=("dent", "hole"),
        is_unknown=True,
        regions=(
            region(1.0, 2.0, 3.0, 4.0, area=100, score=0.25, name="dent", confidence=0.8),
            region(-2.0, 0.0, 10.5, 12.0, area=50, score=0.5, name="hole", confidence=0.75, unknown=True),
        ),
    ),
    ImageResult(
        "b, c/1.png",
        (60, 80),
        0,
        "good part",
        1.0,
        is_normal=True,
        classes=("good part",),
        regions=(region(0.0, 0.0, 80.0, 60.0, area=0, score=0.1, name="good part", confidence=1.0),),  # stands for it
    ),
]


def read_table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_image_is_a_row(tmp_path):
    write_tables(tmp_path / "new", RESULTS)
    first, second = read_table(tmp_path / "new" / "predictions.csv")
    assert first == {
        "image": "a/0.png",
        "class": "dent",
        "confidence": "0.6",
        "normal": "False",
        "num_regions": "2",
        "unknown": "True",
        "classes": "dent;hole",
    }
    assert tuple(first) == COLUMNS["predictions.csv"]
    assert (second["image"], second["normal"], second["num_regions"]) == ("b, c/1.png", "True", "0")


def test_every_region_is_a_row_and_an_image_without_any_has_none(tmp_path):
    write_tables(tmp_path, RESULTS)
    lines = (tmp_path / "regions.csv").read_text().splitlines()
    assert lines[0] == "image,left,top,right,bottom,area,score,class,confidence,unknown"
    assert lines[2] == "a/0.png,-2.0,0.0,10.5,12.0,50,0.5,hole,0.75,True"
    assert len(lines) == 3


def test_tables_without_rows_have_a_header(tmp_path):
    write_tables(tmp_path, [])
    assert (tmp_path / "predictions.csv").read_text() == "image,class,confidence,normal,num_regions,unknown,classes\n"
    assert read_table(tmp_path / "regions.csv") == []


def test_errors_have_a_table_of_their_own():
    failed, fine = ImageResult("a.png", error="broken").to_dict(), RESULTS[0].to_dict()
    assert table_rows("errors.csv", failed) == [["a.png", "broken"]]
    assert table_rows("errors.csv", fine) == []
    assert table_rows("predictions.csv", failed) == table_rows("regions.csv", failed) == []


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("'=1", "''=1"),
        ("'tis", "'tis"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_no_spreadsheet_runs_a_cell(text, cell, tmp_path):
    (tmp_path / "t.csv").write_bytes(csv_bytes([["name", "number"], [text, -1.5]]))
    assert read_table(tmp_path / "t.csv") == [{"name": cell, "number": "-1.5"}]


def test_example_of_csv_bytes():
    assert csv_bytes([["image", "class"], ["a.png", "=1+1"]]) == b"image,class\r\na.png,'=1+1\r\n"
