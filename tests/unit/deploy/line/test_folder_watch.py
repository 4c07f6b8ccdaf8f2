# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import os
import shutil

import cv2
import numpy as np
import pytest

from anomalib_ncd.deploy.line.folder_watch import FolderWatch, MapFolder, WatchOptions

PATIENT = WatchOptions(settle_seconds=1, retry_seconds=1, max_tries=3)

PIXELS = np.zeros((16, 16, 3), np.uint8)


def test_maps_are_found_by_relative_path_and_by_stem(tiny_run, tmp_path):
    maps = MapFolder(tiny_run.anomaly_maps, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    assert maps.find(image) == tiny_run.anomaly_maps / "line" / "003.npy"
    [anomaly_map] = maps.detect([PIXELS], [image])
    np.testing.assert_array_equal(anomaly_map, np.load(tiny_run.anomaly_maps / "line" / "003.npy"))
    np.save(tmp_path / "003.npy", np.ones((4, 4)))
    assert MapFolder(tmp_path, image).find(image) == tmp_path / "003.npy"


def test_missing_maps_are_named(tiny_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder of anomaly maps"):
        MapFolder(tmp_path / "nothing", tiny_run.images)
    maps = MapFolder(tmp_path, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    assert maps.find(image) is None
    with pytest.raises(FileNotFoundError, match=r"003\.png has no anomaly map in"):
        maps.detect([PIXELS], [image])
    with pytest.raises(ValueError, match="A folder of maps needs images with a path"):
        maps.detect([PIXELS])


def test_maps_that_come_later_are_found_after_a_new_look(tiny_run, tmp_path):
    maps = MapFolder(tmp_path, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    (tmp_path / "line").mkdir()
    np.save(tmp_path / "line" / "003.npy", np.ones((4, 4)))
    assert maps.find(image) is None
    maps.refresh()
    assert maps.find(image) == tmp_path / "line" / "003.npy"


def test_twins_of_a_name_are_refused(tiny_run, tmp_path):
    np.save(tmp_path / "003.npy", np.ones((4, 4)))
    maps = MapFolder(tmp_path, tiny_run.images)
    for kind in ("line", "square"):
        with pytest.raises(ValueError, match="Several images are called '003'"):
            maps.find(tiny_run.images / kind / "003.png")


def test_maps_of_two_kinds_are_refused(tiny_run, tmp_path):
    (tmp_path / "line").mkdir()
    for name, dtype in (("001", np.float32), ("002", np.uint8)):
        np.save(tmp_path / "line" / f"{name}.npy", np.ones((4, 4), dtype))
    maps = MapFolder(tmp_path, tiny_run.images)
    images = [tiny_run.images / "line" / f"{name}.png" for name in ("001", "002")]
    maps.detect([PIXELS], images[:1])
    with pytest.raises(ValueError, match=r"002\.npy holds uint8, but .*001\.npy float"):
        maps.detect([PIXELS], images[1:])
    maps.expect("uint8")
    with pytest.raises(ValueError, match=r"001\.npy holds float, but the run's uint8"):
        maps.detect([PIXELS], images[:1])


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


class Results(dict):
    """What the results of finished images were made from."""

    def __init__(self):
        super().__init__()
        self.errors = {}

    def finish(self, watch, arrived):
        """Finish a file as one that can be read, or not; its name where it is not put off."""
        image = cv2.imdecode(np.frombuffer(arrived.path.read_bytes(), np.uint8), 1) if arrived.path.exists() else None
        if image is None and watch.put_off(arrived):
            return []
        self[watch.identity(arrived)] = arrived.made_from
        self.errors[arrived.name] = image is None
        return [arrived.name]

    def poll(self, watch):
        """Names of the files that are finished in one look."""
        return [name for arrived in watch.poll() for name in self.finish(watch, arrived)]


@pytest.fixture
def results():
    return Results()


@pytest.fixture
def watch(folder, results, clock):
    return FolderWatch(folder, results.get, PATIENT, clock=clock)


def encoded(seed=0, suffix=".png"):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def test_without_patience_everything_is_there_at_once(folder, results):
    (folder / "b").mkdir()
    (folder / "b" / "1.png").write_bytes(encoded())
    (folder / "broken.png").write_bytes(encoded()[:30])
    watch = FolderWatch(folder, results.get)
    assert results.poll(watch) == ["broken.png", "b/1.png"]
    assert results.errors == {"b/1.png": False, "broken.png": True}
    assert results.poll(watch) == []
    again = FolderWatch(folder, results.get)
    assert (results.poll(again), again.num_done) == ([], 2)


def test_one_file_is_the_same_by_whatever_path_it_comes(folder, results, monkeypatch):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(encoded())
    assert results.poll(FolderWatch(folder / "b.png", results.get)) == ["b.png"]
    monkeypatch.chdir(folder)
    assert results.poll(FolderWatch(".", results.get)) == ["a.png"]
    assert results.poll(FolderWatch(folder.parent, results.get)) == []


def test_a_file_is_looked_at_when_it_has_settled(watch, folder, results, clock):
    (folder / "a.png").write_bytes(encoded())
    assert results.poll(watch) == []
    clock.now = 0.9
    assert results.poll(watch) == []
    clock.now = 1.0
    assert results.poll(watch) == ["a.png"]
    assert len(watch.pending) == 1  # until the next look finds its result
    assert results.poll(watch) == []
    assert not watch.pending


def test_a_file_that_grows_is_waited_for(watch, folder, results, clock):
    data = encoded()
    for part in range(1, 5):
        (folder / "a.png").write_bytes(data[: len(data) * part // 4])
        assert results.poll(watch) == []
        clock.now += 0.8
    assert results.poll(watch) == []
    clock.now += 0.3
    assert results.poll(watch) == ["a.png"]


def test_a_writer_that_pauses_is_given_time(watch, folder, results, clock):
    data = encoded()
    (folder / "a.png").write_bytes(data[:30])
    results.poll(watch)
    clock.now = 1.5
    assert results.poll(watch) == []  # settled but cut off: first try
    (folder / "a.png").write_bytes(data)
    results.poll(watch)
    clock.now = 2.6
    assert results.poll(watch) == ["a.png"]
    assert not results.errors["a.png"]


def test_a_file_that_stays_broken_is_given_up_after_growing_pauses(watch, folder, results, clock):
    (folder / "a.png").write_bytes(encoded()[:30])
    tries = []
    for tenth in range(100):
        clock.now = tenth / 10
        for arrived in watch.poll():
            tries.append(clock.now)
            results.finish(watch, arrived)
    # settled after 1 s, then again after 1 s and 2 s
    assert tries == [1.0, 2.0, 4.0]
    assert results.errors == {"a.png": True}
    # Whoever mends it gets it classified.
    (folder / "a.png").write_bytes(encoded())
    results.poll(watch)
    clock.now += 1
    assert results.poll(watch) == ["a.png"]
    assert results.errors == {"a.png": False}


def test_what_vanishes_is_forgotten(watch, folder, results, clock):
    (folder / "a.png").write_bytes(encoded())
    results.poll(watch)
    assert len(watch.pending) == 1
    (folder / "a.png").unlink()
    clock.now = 5
    assert results.poll(watch) == []
    assert not watch.pending
    shutil.rmtree(folder)
    assert results.poll(watch) == []


def test_what_vanishes_before_it_is_read_is_no_error(watch, folder, results, clock):
    for number in range(2):
        (folder / f"{number}.png").write_bytes(encoded(number))
    results.poll(watch)
    clock.now = 5
    looked = watch.poll()
    first = next(looked)
    first.path.unlink()
    assert results.finish(watch, first) == []
    assert [name for arrived in looked for name in results.finish(watch, arrived)] == ["1.png"]
    assert results.errors == {"1.png": False}


def test_a_file_that_changes_while_it_is_read_is_read_again(watch, folder, results, clock):
    (folder / "a.png").write_bytes(encoded(0))
    results.poll(watch)
    clock.now = 5
    [arrived] = watch.poll()
    (folder / "a.png").write_bytes(encoded(1))
    os.utime(folder / "a.png", ns=(7, 7))
    results.finish(watch, arrived)
    assert results.poll(watch) == []
    clock.now = 7
    assert results.poll(watch) == ["a.png"]
    assert results.poll(watch) == []


@pytest.mark.parametrize("mtime_ns", [1, 2 * 10**18])
def test_another_picture_under_an_old_name_is_a_new_image_however_old_it_is(watch, folder, results, clock, mtime_ns):
    (folder / "a.png").write_bytes(encoded(0))
    results.poll(watch)
    clock.now = 2
    assert results.poll(watch) == ["a.png"]
    (folder / "a.png").write_bytes(encoded(1))
    os.utime(folder / "a.png", ns=(mtime_ns, mtime_ns))
    results.poll(watch)
    clock.now = 4
    assert results.poll(watch) == ["a.png"]


def test_a_restart_goes_on_from_the_results(folder, results):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(encoded())
    first = FolderWatch(folder, results.get)
    results.finish(first, next(first.poll()))
    again = FolderWatch(folder, results.get)
    assert results.poll(again) == ["b.png"]
    assert again.num_done == 1


class Maps:
    """Anomaly maps by a function."""

    def __init__(self, find):
        self.find = find

    def refresh(self):
        pass


def test_a_new_map_makes_an_image_be_classified_again(folder, results, clock, tmp_path):
    (tmp_path / "maps").mkdir()
    (folder / "a.png").write_bytes(encoded())
    file = tmp_path / "maps" / "a.npy"

    def map_of(path):
        return file if file.exists() else None

    watch = FolderWatch(folder, results.get, PATIENT, Maps(map_of), clock=clock)
    file.write_bytes(b"half")
    results.poll(watch)
    clock.now = 0.9
    file.write_bytes(b"a whole map")
    results.poll(watch)
    clock.now = 1.8
    assert results.poll(watch) == []  # the map changed 0.9 s ago
    clock.now = 1.9
    assert results.poll(watch) == ["a.png"]
    for change in (lambda: file.write_bytes(b"a n e w map"), lambda: os.utime(file, ns=(1, 1)), file.unlink):
        assert results.poll(watch) == []
        change()
        results.poll(watch)
        clock.now += 1
        assert results.poll(watch) == ["a.png"]


def test_a_map_that_cannot_be_looked_for_is_left_to_whoever_reads_it(folder, results):
    def map_of(path):
        raise ValueError

    (folder / "a.png").write_bytes(encoded())
    assert results.poll(FolderWatch(folder, results.get, maps=Maps(map_of))) == ["a.png"]


def test_a_file_that_cannot_be_looked_at_is_left_to_whoever_reads_it(folder, results, monkeypatch):
    (folder / "a.png").write_bytes(encoded())
    watch, real = FolderWatch(folder, results.get), type(folder).stat

    def stat(path, **options):
        if path.name == "a.png":
            raise PermissionError
        return real(path, **options)

    monkeypatch.setattr(type(folder), "stat", stat)
    [arrived] = watch.poll()
    assert (arrived.name, watch.put_off(arrived)) == ("a.png", False)
