# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import errno
import json
import os

import cv2
import numpy as np
import pytest

from anomalib_ncd.deploy import Artefact, ImageResult, RegionResult
from anomalib_ncd.deploy.line import journal as journal_module
from anomalib_ncd.deploy.line.journal import FileStamp, OutputError
from anomalib_ncd.deploy.line.result_folder import COLUMNS, Finished, ResultFolder
from anomalib_ncd.results.predictions import ImagePrediction, RegionPrediction, write_csv

PIXELS = np.full((32, 32, 3), 90, np.uint8)


@pytest.fixture
def manifest(torch_artefact):
    return Artefact.load(torch_artefact).manifest


def build_finished(name, *, error=None, is_final=True):
    if error is not None:
        result = ImageResult(image=f"/in/{name}", error=error)
        return Finished(name, FileStamp(1, 2, name), result, None, is_final)
    region = RegionResult(
        box_xyxy=(1.5, 2, 9.5, 10),
        area=5,
        score=0.25,
        class_id=1,
        class_name="dark",
        confidence=0.75,
        is_unknown=False,
        probabilities=(0.25, 0.75, 0, 0),
        mask=np.ones((8, 8), bool),
    )
    result = ImageResult(
        image=f"/in/{name}",
        size_hw=(32, 32),
        score=0.5,
        class_id=1,
        class_name="dark",
        confidence=0.75,
        classes=("dark", "bright"),
        num_anomalies=1,
        probabilities=(0.25, 0.75, 0, 0),
        regions=(region, region),
    )
    return Finished(name, FileStamp(1, 2, name), result, PIXELS, is_final)


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_tables_and_pictures(manifest, tmp_path):
    with ResultFolder(tmp_path, manifest) as results:
        results.add([build_finished("a.png"), build_finished("b/c.png")])
        results.add([build_finished("d.png", error="broken, and how")])
    assert rows_of(tmp_path / "predictions.csv") == [
        {
            "image": f"/in/{name}",
            "class": "dark",
            "confidence": "0.75",
            "num_regions": "2",
            "unknown": "False",
            "classes": "dark;bright",
            "normal": "False",
            "score": "0.5",
        }
        for name in ("a.png", "b/c.png")
    ]
    regions = rows_of(tmp_path / "regions.csv")
    assert len(regions) == 4
    assert list(regions[0]) == list(COLUMNS["regions.csv"])
    assert list(regions[0].values())[1:6] == ["1.5", "2", "9.5", "10", "5"]
    assert rows_of(tmp_path / "errors.csv") == [{"image": "/in/d.png", "error": "broken, and how"}]
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert names == ["pictures/a.png.jpg", "pictures/b/c.png.jpg"]
    assert cv2.imread(str(tmp_path / names[0])) is not None
    assert not [path for path in tmp_path.rglob("*") if "unfinished" in path.name]


def test_columns_begin_like_those_of_a_run(run_folder, tiny_run, tmp_path):
    for name, row_type in (("predictions.csv", ImagePrediction), ("regions.csv", RegionPrediction)):
        write_csv(tmp_path / name, [], row_type)
        columns = (tmp_path / name).read_text().strip().split(",")
        assert list(COLUMNS[name][: len(columns)]) == columns


def test_a_journal_of_before_goes_on(manifest, tmp_path):
    with ResultFolder(tmp_path, manifest, pictures=False) as results:
        results.add([build_finished("a.png")])
    journal = tmp_path / "results.jsonl"
    journal.write_text(journal.read_text().replace('"classes": ["dark", "bright"], ', ""))
    with ResultFolder(tmp_path, manifest, pictures=False) as results:
        results.add([build_finished("b.png")])
    assert [row["classes"] for row in rows_of(tmp_path / "predictions.csv")] == ["", "dark;bright"]


def test_tables_are_made_anew_from_the_journal(manifest, tmp_path):
    with ResultFolder(tmp_path, manifest, pictures=False) as results:
        results.add([build_finished("a.png")])
    before = (tmp_path / "predictions.csv").read_bytes()
    (tmp_path / "predictions.csv").write_bytes(before[:-9])  # what a kill may leave
    (tmp_path / "regions.csv").unlink()
    with ResultFolder(tmp_path, manifest, pictures=False) as results:
        assert (tmp_path / "predictions.csv").read_bytes() == before
        assert len(rows_of(tmp_path / "regions.csv")) == 2
        results.add([build_finished("b.png")])
    assert [row["image"] for row in rows_of(tmp_path / "predictions.csv")] == ["/in/a.png", "/in/b.png"]


def test_an_error_from_outside_the_file_is_tried_again_by_the_next_call_alone(manifest, tmp_path):
    with ResultFolder(tmp_path, manifest) as results:
        results.add([build_finished("a.png", error="no map", is_final=False)])
        assert results.journal.stamp_of("a.png") == FileStamp(1, 2, "a.png")
    with ResultFolder(tmp_path, manifest) as results:
        assert results.journal.stamp_of("a.png") != FileStamp(1, 2, "a.png")
        assert len(rows_of(tmp_path / "errors.csv")) == 1
        results.add([build_finished("a.png")])
    assert rows_of(tmp_path / "errors.csv") == []
    assert len(rows_of(tmp_path / "predictions.csv")) == 1


def test_results_of_another_classifier_are_not_mixed_in(manifest, tmp_path):
    with ResultFolder(tmp_path, manifest, pictures=False) as results:
        results.add([build_finished("a.png")])
    other = type(manifest)(**{**manifest.__dict__, "class_names": ("normal", "x", "y", "z")})
    with pytest.raises(ValueError, match="holds results of another classifier or other class names"):
        ResultFolder(tmp_path, other)
    with ResultFolder(tmp_path, manifest, pictures=False) as results:  # the lock was given back
        assert len(results.journal) == 1


def test_masks_go_into_the_journal_where_they_are_wanted(manifest, tmp_path):
    with ResultFolder(tmp_path, manifest, pictures=False, masks=True) as results:
        results.add([build_finished("a.png")])
    entry = json.loads((tmp_path / "results.jsonl").read_text())
    assert entry["result"]["regions"][0]["mask"] == {"size_hw": [8, 8], "run_lengths": [0, 64]}


@pytest.mark.parametrize("after", range(5))
def test_a_disk_that_fills_up_at_any_moment_leaves_whole_rows(manifest, tmp_path, monkeypatch, after):
    """The n-th write fails half way; whatever is left can be read, and the next call goes on."""
    with ResultFolder(tmp_path, manifest, pictures=False) as results:
        results.add([build_finished("a.png")])
        real, count = os.write, [0]

        def write_until_full(descriptor, data):
            count[0] += 1
            if count[0] > after:
                real(descriptor, bytes(data[: len(data) // 2]))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(journal_module.os, "write", write_until_full)
            if after < 3:
                with pytest.raises(OutputError, match="The disk is full"):
                    results.add([build_finished("b.png")])
            else:
                results.add([build_finished("b.png")])
        for name in COLUMNS:
            assert (tmp_path / name).read_text().endswith("\n")
            assert all(None not in row.values() for row in rows_of(tmp_path / name))
    with ResultFolder(tmp_path, manifest, pictures=False) as results:
        if results.journal.stamp_of("b.png") is None:
            results.add([build_finished("b.png")])
    assert [row["image"] for row in rows_of(tmp_path / "predictions.csv")] == ["/in/a.png", "/in/b.png"]
    assert len(rows_of(tmp_path / "regions.csv")) == 4
