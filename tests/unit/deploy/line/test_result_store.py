# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from anomalib_ncd.deploy.line import result_store
from anomalib_ncd.deploy.line.result_store import ResultStore
from anomalib_ncd.regions.writing import OutputError

KILLED = """
import sys
from anomalib_ncd.deploy.line.result_store import ResultStore
store = ResultStore(sys.argv[1], "classifier")
for number in range(10**9):
    store.save([(f"{number:09d}{part}", "1:2", {"image": "x" * 500, "error": None}) for part in "ab"])
    print(number, flush=True)
"""
OPENED = """
import sys
from anomalib_ncd.deploy.line.result_store import ResultStore
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

    monkeypatch.setattr(result_store, "write_file", fail)
    with pytest.raises(OutputError, match=r"results\.sqlite can't be written: no space left on the disk"):
        ResultStore(tmp_path / "results.sqlite", "classifier")


def test_what_is_no_database_and_what_is_no_folder_is_named(tmp_path):
    (tmp_path / "results.sqlite").write_text("no database, but long enough to be looked at")
    with pytest.raises(OutputError, match=r"results\.sqlite is damaged .* remove it, or choose another"):
        ResultStore(tmp_path / "results.sqlite", "classifier")
    with pytest.raises(OutputError, match="can't be written: a file stands where its folder should be"):
        ResultStore(tmp_path / "results.sqlite" / "out" / "results.sqlite", "classifier")
