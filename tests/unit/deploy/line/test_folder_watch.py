# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import os
import shutil

import cv2
import numpy as np
import pytest

from anomalib_ncd.deploy import ImageLimits
from anomalib_ncd.deploy.line.folder_watch import FolderWatch, WatchOptions
from anomalib_ncd.deploy.line.journal import Journal

PATIENT = WatchOptions(settle_seconds=1, retry_seconds=1, max_tries=3)


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as opened:
        yield opened


@pytest.fixture
def watch(folder, journal, clock):
    return FolderWatch(folder, journal, PATIENT, clock=clock)


def encoded(seed=0, suffix=".png"):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def finish(journal, arrived):
    journal.append([(one.name, one.stamp, {"image": one.name, "error": one.error}) for one in arrived])
    return [one.name for one in arrived]


def poll(watch, journal):
    """Names of the files that arrive in one look, which are finished thereby."""
    return finish(journal, list(watch.poll()))


def test_without_patience_everything_is_there_at_once(folder, journal):
    (folder / "b").mkdir()
    (folder / "b" / "1.png").write_bytes(encoded())
    (folder / "broken.jpg").write_bytes(encoded(suffix=".jpg")[:-20])
    watch = FolderWatch(folder, journal)
    first, second = watch.poll()
    assert (first.name, second.name) == ("b/1.png", "broken.jpg")
    assert first.pixels.shape == (40, 40, 3)
    assert first.error is None
    assert second.pixels is None
    assert "is cut off after" in second.error
    finish(journal, [first, second])
    assert poll(watch, journal) == []


def test_one_file_can_be_named(folder, journal):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(encoded())
    assert poll(FolderWatch(folder / "b.png", journal), journal) == ["b.png"]


def test_a_file_is_looked_at_when_it_has_settled(watch, folder, journal, clock):
    (folder / "a.png").write_bytes(encoded())
    assert poll(watch, journal) == []
    clock.now = 0.9
    assert poll(watch, journal) == []
    clock.now = 1.0
    assert poll(watch, journal) == ["a.png"]
    assert poll(watch, journal) == []


def test_a_file_that_grows_is_waited_for(watch, folder, journal, clock):
    data = encoded()
    for part in range(1, 5):
        (folder / "a.png").write_bytes(data[: len(data) * part // 4])
        assert poll(watch, journal) == []
        clock.now += 0.8
    assert poll(watch, journal) == []
    clock.now += 0.3
    assert poll(watch, journal) == ["a.png"]


def test_a_writer_that_pauses_is_given_time(watch, folder, journal, clock):
    data = encoded(suffix=".jpg")
    (folder / "a.jpg").write_bytes(data[:300])
    poll(watch, journal)
    clock.now = 1.5
    assert poll(watch, journal) == []  # settled but cut off: first try
    (folder / "a.jpg").write_bytes(data)
    poll(watch, journal)
    clock.now = 2.6
    [arrived] = watch.poll()
    assert arrived.error is None


def test_a_file_that_stays_broken_is_given_up_after_growing_pauses(watch, folder, journal, clock):
    (folder / "a.png").write_bytes(encoded()[:300])
    tries = []
    for tenth in range(100):
        clock.now = tenth / 10
        before = {path: one.tries for path, one in watch._pending.items()}
        arrived = list(watch.poll())
        if arrived or {path: one.tries for path, one in watch._pending.items()} != before:
            tries.append(clock.now)
        finish(journal, arrived)
    # first seen, then settled after 1 s, then again after 1 s and 2 s
    assert tries == [0.0, 1.0, 2.0, 4.0]
    [result] = journal.results()
    assert "is cut off after 300 bytes" in result["error"]
    # Whoever mends it gets it classified.
    (folder / "a.png").write_bytes(encoded())
    poll(watch, journal)
    clock.now += 1
    assert poll(watch, journal) == ["a.png"]


def test_what_vanishes_is_forgotten(watch, folder, journal, clock):
    (folder / "a.png").write_bytes(encoded())
    poll(watch, journal)
    assert watch.num_pending == 1
    (folder / "a.png").unlink()
    clock.now = 5
    assert poll(watch, journal) == []
    assert watch.num_pending == 0
    shutil.rmtree(folder)
    assert poll(watch, journal) == []


def test_what_vanishes_while_it_is_read_is_forgotten(watch, folder, journal, clock, monkeypatch):
    (folder / "a.png").write_bytes(encoded(0))
    (folder / "b.png").write_bytes(encoded(1))
    poll(watch, journal)
    clock.now = 5
    real = type(folder).read_bytes

    def read_too_late(path):
        if path.name == "a.png":
            path.unlink()
        return real(path)

    monkeypatch.setattr(type(folder), "read_bytes", read_too_late)
    assert poll(watch, journal) == ["b.png"]
    assert watch.num_pending == 0


def test_a_file_that_changes_while_it_is_read_is_read_again(watch, folder, journal, clock, monkeypatch):
    (folder / "a.png").write_bytes(encoded(0))
    poll(watch, journal)
    clock.now = 5
    real = type(folder).read_bytes

    def read_while_it_is_written(path):
        data = real(path)
        path.write_bytes(encoded(1))
        os.utime(path, ns=(7, 7))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "read_bytes", read_while_it_is_written)
        assert poll(watch, journal) == []
    clock.now = 7
    [arrived] = watch.poll()
    np.testing.assert_array_equal(arrived.pixels[..., ::-1], cv2.imdecode(np.frombuffer(encoded(1), np.uint8), 1))


def test_the_same_image_is_not_taken_twice(watch, folder, journal, clock):
    (folder / "a.png").write_bytes(encoded())
    poll(watch, journal)
    clock.now = 2
    assert poll(watch, journal) == ["a.png"]
    os.utime(folder / "a.png", ns=(123, 123))  # touched, or copied there again
    for clock.now in (3, 4, 5, 6):
        assert poll(watch, journal) == []
    assert watch.num_pending == 0


def test_a_new_picture_under_an_old_name_is_a_new_image(watch, folder, journal, clock):
    (folder / "a.png").write_bytes(encoded(0))
    poll(watch, journal)
    clock.now = 2
    assert poll(watch, journal) == ["a.png"]
    (folder / "a.png").write_bytes(encoded(1))
    os.utime(folder / "a.png", ns=(123, 123))
    poll(watch, journal)
    clock.now = 4
    assert poll(watch, journal) == ["a.png"]


def test_a_restart_goes_on_from_the_journal(folder, tmp_path):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(encoded())
    with Journal(tmp_path / "again.jsonl") as journal:
        finish(journal, list(FolderWatch(folder, journal).poll())[:1])
    with Journal(tmp_path / "again.jsonl") as journal:
        assert poll(FolderWatch(folder, journal), journal) == ["b.png"]


def test_an_image_waits_for_what_belongs_to_it(folder, journal, clock):
    ready = set()
    watch = FolderWatch(folder, journal, PATIENT, is_ready=lambda path: path.name in ready, clock=clock)
    (folder / "a.png").write_bytes(encoded())
    poll(watch, journal)
    clock.now = 1
    assert poll(watch, journal) == []
    ready.add("a.png")
    clock.now = 2
    assert poll(watch, journal) == ["a.png"]


def test_a_file_too_large_is_not_read(folder, journal):
    (folder / "a.png").write_bytes(encoded())
    [arrived] = FolderWatch(folder, journal, limits=ImageLimits(max_file_bytes=100)).poll()
    assert arrived.pixels is None
    assert "bytes, more than the limit of 100" in arrived.error
