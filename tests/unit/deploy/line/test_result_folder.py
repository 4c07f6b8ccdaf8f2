# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalib_ncd.deploy import ImageResult, RegionResult
from anomalib_ncd.deploy.line import result_folder
from anomalib_ncd.deploy.line.result_folder import Finished, ResultFolder, ResultStore
from anomalib_ncd.deploy.packing.artefact import Manifest, NetworkEntry, Rejection
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.writing import OutputError
from anomalib_ncd.results.tables import COLUMNS
from anomalib_ncd.visualization import drawing

MANIFEST = Manifest(
    class_names=("good part", "dark", "bright", "pale"),
    normal_slot=0,
    score_range=(0, 1),
    regions=RegionSettings(),
    image_size=224,
    encoder=NetworkEntry("torch", ()),
    rejection=Rejection(0.5, 0.02, (0.4, 0.9)),
)
PIXELS = np.full((32, 32, 3), 90, np.uint8)

KILLED = """
import sys
from anomalib_ncd.deploy.line.result_folder import ResultStore
store = ResultStore(sys.argv[1], "classifier")
for number in range(10**9):
    store.save([(f"{number:09d}{part}", "1:2", {"image": "x" * 500, "error": None}) for part in "ab"])
    print(number, flush=True)
"""
OPENED = """
import sys
from anomalib_ncd.deploy.line.result_folder import ResultStore
store = ResultStore(sys.argv[1], "classifier")
print("open", flush=True)
input()
"""


def entry(key, made_from="1:2", **result):
    return key, made_from, {"image": key, "error": None, **result}


def images_in(store, **chosen):
    return [json.loads(line)["image"] for line in store.lines(**chosen)]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "out" / "results.sqlite"


@pytest.fixture
def store(file):
    opened = ResultStore(file, "classifier")
    yield opened
    opened.close()


def test_what_was_saved_is_there_after_a_restart(store, file):
    store.save([entry("c"), entry("a")])
    store.save([entry("b/ä", "3:4 5:6")])
    store.close()
    again = ResultStore(file, "classifier")
    assert len(again) == 3
    assert (again.made_from("a"), again.made_from("b/ä"), again.made_from("d")) == ("1:2", "3:4 5:6", None)
    assert images_in(again) == ["a", "b/ä", "c"]  # in order of their keys, however they came
    again.close()


def test_a_new_result_takes_the_place_of_the_old_one(store):
    store.save([entry("a", "1:2", score=1)])
    store.save([entry("a", "1:3", score=2)])
    assert (len(store), store.made_from("a")) == (1, "1:3")
    assert [json.loads(line)["score"] for line in store.lines()] == [2]


def test_an_error_is_tried_again_by_the_next_call_alone(store, file):
    store.save([entry("a", error="no map"), entry("b")])
    assert store.made_from("a") == "1:2"
    assert (images_in(store, failed=True), images_in(store, failed=False)) == (["a"], ["b"])
    store.close()
    again = ResultStore(file, "classifier")
    assert (again.made_from("a"), again.made_from("b")) == (None, "1:2")
    assert images_in(again, failed=True) == ["a"]
    again.close()


def test_a_name_that_is_no_utf8_is_kept(store):
    name = os.fsdecode(b"m\xfcller.png")
    store.save([entry(name)])
    assert store.made_from(name) == "1:2"
    assert store.made_from("müller.png") is None
    assert images_in(store) == [name]


def test_results_of_another_classifier_or_version_are_refused(store, file):
    store.close()
    with pytest.raises(ValueError, match="holds results of another classifier, detector or other class names"):
        ResultStore(file, "other")
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ValueError, match="has version 99, this package writes 1"):
        ResultStore(file, "classifier")


def test_a_kill_leaves_whole_batches(file):
    for _ in range(3):
        before = None
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(file)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            for _ in range(20):
                before = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        store = ResultStore(file, "classifier")
        found = images_in(store)
        assert len(found) == len(store) >= 2 * (before + 1)
        assert len(found) % 2 == 0
        store.close()


def test_two_processes_do_not_write_one_database(file):
    with subprocess.Popen(
        [sys.executable, "-c", OPENED, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(OutputError, match=r"Another process writes .*results\.sqlite; wait for it, stop it"):
            ResultStore(file, "classifier")
        process.kill()
    ResultStore(file, "classifier").close()  # the lock went with the process


def test_a_full_disk_is_said_and_nothing_is_saved_in_part(store, file):
    store.save([entry("a")])
    store._database.execute("PRAGMA max_page_count = 1")  # as SQLite says it where the disk is full
    with pytest.raises(OutputError, match=r"results\.sqlite can't be written: no space left on the disk"):
        store.save([entry(f"b{number}", text="x" * 5000) for number in range(20)])
    assert images_in(store) == ["a"]
    store._database.execute("PRAGMA max_page_count = 100000")
    store.save([entry("b")])
    assert images_in(store) == ["a", "b"]


def test_the_system_is_asked_for_a_reason_that_sqlite_does_not_know(tmp_path, monkeypatch):
    (tmp_path / "results.sqlite").mkdir()
    with pytest.raises(OutputError, match="unable to open database file"):
        ResultStore(tmp_path / "results.sqlite", "classifier")

    def fail(file, contents):
        raise OutputError.of(file, OSError(errno.ENOSPC, "")) from OSError(errno.ENOSPC, "")

    monkeypatch.setattr(result_folder, "write_file", fail)
    with pytest.raises(OutputError, match=r"results\.sqlite can't be written: no space left on the disk"):
        ResultStore(tmp_path / "results.sqlite", "classifier")


def test_what_is_no_database_and_what_is_no_folder_is_named(tmp_path):
    (tmp_path / "results.sqlite").write_text("no database, but long enough to be looked at")
    with pytest.raises(OutputError, match=r"results\.sqlite is damaged .* remove it, or choose another"):
        ResultStore(tmp_path / "results.sqlite", "classifier")
    with pytest.raises(OutputError, match="can't be written: a file stands where its folder should be"):
        ResultStore(tmp_path / "results.sqlite" / "out" / "results.sqlite", "classifier")


def opened(folder, classifier="a classifier", **options):
    return ResultFolder(folder, classifier, MANIFEST, **options)


def build_finished(name, *, error=None):
    if error is not None:
        return Finished(f"/in/{name}", name, "1:2", ImageResult(image=f"/in/{name}", error=error), None)
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
        probabilities=(0.25, 0.75, 0, 0),
        regions=(region, region),
    )
    return Finished(f"/in/{name}", name, "1:2", result, PIXELS)


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_tables_and_pictures(tmp_path):
    with opened(tmp_path) as results:
        results.add([build_finished("b/c.png"), build_finished("a.png")])
        results.add([build_finished("d.png", error="broken, and how")])
    assert rows_of(tmp_path / "predictions.csv") == [
        {
            "image": f"/in/{name}",
            "class": "dark",
            "confidence": "0.75",
            "normal": "False",
            "num_regions": "2",
            "unknown": "False",
            "classes": "dark;bright",
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


def test_tables_are_written_anew_from_the_database(tmp_path):
    with opened(tmp_path, pictures=False) as results:
        results.add([build_finished("b.png")])
    before = (tmp_path / "predictions.csv").read_bytes()
    (tmp_path / "predictions.csv").write_bytes(before[:-9])
    (tmp_path / "regions.csv").unlink()
    with opened(tmp_path, pictures=False):
        pass
    assert (tmp_path / "predictions.csv").read_bytes() == before
    assert len(rows_of(tmp_path / "regions.csv")) == 2
    with opened(tmp_path, pictures=False) as results:
        results.add([build_finished("a.png")])
    assert [row["image"] for row in rows_of(tmp_path / "predictions.csv")] == ["/in/a.png", "/in/b.png"]


def test_tables_follow_every_few_seconds(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(result_folder.time, "monotonic", lambda: now[0])

    def images():
        results.add([])
        return len(rows_of(tmp_path / "predictions.csv"))

    with opened(tmp_path, pictures=False) as results:
        assert images() == 0
        results.add([build_finished("a.png")])
        assert images() == 0
        now[0] = 6
        assert images() == 1
        now[0] = 100
        written = (tmp_path / "predictions.csv").stat().st_mtime_ns
        assert images() == 1
        assert (tmp_path / "predictions.csv").stat().st_mtime_ns == written  # nothing came


def test_an_error_that_was_got_over_is_gone(tmp_path):
    with opened(tmp_path) as results:
        results.add([build_finished("a.png", error="no map")])
    assert len(rows_of(tmp_path / "errors.csv")) == 1
    with opened(tmp_path) as results:
        results.add([build_finished("a.png")])
    assert rows_of(tmp_path / "errors.csv") == []
    assert len(rows_of(tmp_path / "predictions.csv")) == 1


def test_results_of_another_classifier_or_of_a_run_are_not_mixed_in(tmp_path):
    with opened(tmp_path / "a", pictures=False) as results:
        results.add([build_finished("a.png")])
    with pytest.raises(ValueError, match="holds results of another classifier, detector or other class names"):
        opened(tmp_path / "a", "another")
    with opened(tmp_path / "a", pictures=False) as results:  # the lock was given back
        assert len(results.store) == 1
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "predictions.csv").write_text("image,class")
    with pytest.raises(ValueError, match="holds tables that are not from `classify`, such as a run's"):
        opened(tmp_path / "run")
    assert (tmp_path / "run" / "predictions.csv").read_text() == "image,class"


def test_results_say_when_an_image_was_written_and_whose_they_are(tmp_path):
    day = 1_793_800_000 * 10**9
    with opened(tmp_path, pictures=False) as results:
        results.add([build_finished("a.png")._replace(made_from=f"17:{day} 4:{day + 10**15}")])
    assert json.loads((tmp_path / "results.jsonl").read_text())["modified"] == "2026-11-04T13:46:40+00:00"
    about = json.loads((tmp_path / "classifier.json").read_text())
    assert about == {
        "classifier": "a classifier",
        "class_names": ["good part", "dark", "bright", "pale"],
        "normal": "good part",
        "false_reject_rate": 0.02,
        "similarities": [0.4, 0.9],
    }


def test_masks_go_into_the_results_where_they_are_wanted(tmp_path):
    with opened(tmp_path, pictures=False, masks=True) as results:
        results.add([build_finished("a.png")])
    result = json.loads((tmp_path / "results.jsonl").read_text())
    assert result["regions"][0]["mask"] == {"size_hw": [8, 8], "run_lengths": [0, 64]}


def test_a_name_that_is_no_utf8_or_very_long_is_no_obstacle(tmp_path):
    odd, long = os.fsdecode(b"m\xfcller.png"), f"a/{'x' * 250}.png"
    with opened(tmp_path) as results:
        results.add([build_finished(odd), build_finished(long)])
    rows = rows_of(tmp_path / "predictions.csv")
    assert [row["image"] for row in rows] == [f"/in/{long}", r"/in/m\udcfcller.png"]
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[1])["image"] == f"/in/{odd}"
    names = [os.fsencode(path.relative_to(tmp_path / "pictures")) for path in sorted(tmp_path.rglob("*.jpg"))]
    assert names[1] == b"m\xfcller.png.jpg"
    assert names[0].startswith(b"a/xxxxx")
    assert len(names[0]) < 100


def test_without_the_packages_for_pictures_none_are_drawn(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "anomalib_ncd.visualization.drawing", None)
    with opened(tmp_path) as results:
        results.add([build_finished("a.png"), build_finished("b.png")])
    assert len(rows_of(tmp_path / "predictions.csv")) == 2
    assert caplog.text.count("No pictures are drawn") == 1


def test_a_picture_that_cannot_be_drawn_costs_no_result(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(drawing, "draw_result", lambda *_: 1 / 0)
    with opened(tmp_path) as results:
        results.add([build_finished("a.png")])
    assert len(rows_of(tmp_path / "predictions.csv")) == 1
    assert "The picture of a.png can't be drawn: division by zero" in caplog.text


@pytest.mark.parametrize("name", ["a.png.jpg", "results.jsonl", *COLUMNS])
def test_a_disk_that_fills_up_at_any_moment_leaves_whole_files(tmp_path, monkeypatch, name):
    with opened(tmp_path) as results:
        results.add([build_finished("b.png")])
    real = Path.replace

    def replace_unless_full(path, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_unless_full)
        with (
            pytest.raises(OutputError, match=f"{name} can't be written: no space left on the disk"),
            opened(tmp_path) as results,
        ):
            results.add([build_finished("a.png")])
    for table in COLUMNS:
        assert all(None not in row.values() for row in rows_of(tmp_path / table))
    with opened(tmp_path) as results:
        if results.store.made_from("/in/a.png") is None:
            results.add([build_finished("a.png")])
    assert [row["image"] for row in rows_of(tmp_path / "predictions.csv")] == ["/in/a.png", "/in/b.png"]
    assert len(rows_of(tmp_path / "regions.csv")) == 4
    assert not [path for path in tmp_path.rglob("*") if "unfinished" in path.name]
