# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.deploy.line.folder_run import FolderWatch, MapFolder, WatchOptions, classify_folder
from anomalib_ncd.deploy.line.result_folder import ResultStore

PATIENT = WatchOptions(settle_seconds=1, retry_seconds=1, max_tries=3)

PIXELS = np.zeros((16, 16, 3), np.uint8)

QUICK = WatchOptions(settle_seconds=0.05, retry_seconds=0.05, max_tries=4)

KILLED = """
import sys, time
import numpy as np
from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.deploy.line.folder_run import classify_folder

def slow(pixels):
    time.sleep(0.03)
    return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120

classifier = AnomalyClassifier.load(sys.argv[1], slow, batch_size=2, num_threads=1)
print("ready", flush=True)
print(classify_folder(classifier, sys.argv[2], sys.argv[3], pictures=False), flush=True)
"""


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


@pytest.fixture(scope="module")
def classifier(onnx_artefact):
    def grey(pixels):
        return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120

    return AnomalyClassifier.load(onnx_artefact, grey, batch_size=4, num_threads=1)


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def classes_in(output):
    return {Path(row["image"]).name: row["class"] for row in rows_of(output / "predictions.csv")}


def test_a_folder_is_classified_once(classifier, tiny_run, tmp_path):
    assert classify_folder(classifier, tiny_run.images, tmp_path) == (18, 0, 0)
    assert classify_folder(classifier, tiny_run.images, tmp_path) == (0, 0, 18)
    rows = rows_of(tmp_path / "predictions.csv")
    wanted = {result.image: result for result in classifier.predict(tiny_run.images)}
    assert {row["image"]: row["class"] for row in rows} == {name: one.class_name for name, one in wanted.items()}
    assert len(rows_of(tmp_path / "regions.csv")) == sum(
        part.area > 0 for one in wanted.values() for part in one.regions
    )
    assert len(list((tmp_path / "pictures").rglob("*.jpg"))) == 18


def test_bad_files_are_listed_and_tried_again_by_the_next_call(classifier, tiny_run, tmp_path):
    images = shutil.copytree(tiny_run.images / "line", tmp_path / "images")
    (images / "broken.png").write_bytes(b"no picture")
    assert classify_folder(classifier, images, tmp_path / "out") == (6, 1, 0)
    assert classify_folder(classifier, images, tmp_path / "out") == (0, 1, 6)
    [row] = rows_of(tmp_path / "out" / "errors.csv")
    assert row["image"].endswith("broken.png")
    assert "no image file" in row["error"]
    shutil.copy(images / "000.png", images / "broken.png")
    assert classify_folder(classifier, images, tmp_path / "out") == (1, 0, 6)
    assert rows_of(tmp_path / "out" / "errors.csv") == []


def test_a_detector_that_returns_nan_is_reported_and_asked_again(onnx_artefact, tiny_run, tmp_path):
    images, value = tiny_run.images / "line", np.nan

    def grey(pixels):
        scores = np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120
        return np.full_like(scores, value) if pixels[0, 0, 0] % 2 else scores

    classifier = AnomalyClassifier.load(onnx_artefact, grey)
    odd = sum(cv2.imread(str(file))[0, 0, 2] % 2 for file in images.iterdir())
    assert 0 < odd < 6
    assert classify_folder(classifier, images, tmp_path, pictures=False) == (6 - odd, odd, 0)
    assert all("got NaN or infinity" in row["error"] for row in rows_of(tmp_path / "errors.csv"))
    value = 0.5
    assert classify_folder(classifier, images, tmp_path, pictures=False) == (odd, 0, 6 - odd)
    assert (len(rows_of(tmp_path / "predictions.csv")), len(rows_of(tmp_path / "errors.csv"))) == (6, 0)


def test_a_map_that_was_missing_is_looked_for_again(onnx_artefact, own_tiny_run, tmp_path):
    images, maps = own_tiny_run.images / "line", own_tiny_run.anomaly_maps / "line"
    (maps / "003.npy").rename(tmp_path / "late.npy")
    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(maps, images))
    assert classify_folder(classifier, images, tmp_path / "out", pictures=False) == (5, 1, 0)
    assert "has no anomaly map" in rows_of(tmp_path / "out" / "errors.csv")[0]["error"]
    (tmp_path / "late.npy").rename(maps / "003.npy")
    assert classify_folder(classifier, images, tmp_path / "out", pictures=False) == (1, 0, 5)
    assert rows_of(tmp_path / "out" / "errors.csv") == []


def test_a_new_map_or_picture_makes_an_image_be_classified_again(onnx_artefact, own_tiny_run, tmp_path):
    images, maps = own_tiny_run.images / "line", own_tiny_run.anomaly_maps / "line"
    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(maps, images))
    assert classify_folder(classifier, images, tmp_path, pictures=False) == (6, 0, 0)
    assert {row["num_regions"] for row in rows_of(tmp_path / "predictions.csv")} == {"1"}
    np.save(maps / "003.npy", np.load(maps / "003.npy") * 0)
    os.utime(maps / "003.npy", ns=(1, 1))  # an older map is another one as well
    cv2.imwrite(str(images / "004.png"), np.zeros((64, 64, 3), np.uint8))
    assert classify_folder(classifier, images, tmp_path, pictures=False) == (2, 0, 4)
    normal = {Path(row["image"]).name: row["normal"] for row in rows_of(tmp_path / "predictions.csv")}
    assert [normal[f"00{number}.png"] for number in (2, 3)] == ["False", "True"]
    assert classify_folder(classifier, images, tmp_path, pictures=False) == (0, 0, 6)


def test_an_image_never_gets_the_map_of_another(onnx_artefact, own_tiny_run, tmp_path):
    images, maps = own_tiny_run.images, own_tiny_run.anomaly_maps
    (maps / "line" / "000.npy").rename(maps / "000.npy")
    shutil.copy(images / "square" / "000.png", images / "000.png")
    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(maps, images))
    assert classify_folder(classifier, images, tmp_path / "out", pictures=False) == (18, 1, 0)
    [row] = rows_of(tmp_path / "out" / "errors.csv")
    assert row["image"].endswith("line/000.png")
    assert "has no anomaly map" in row["error"]


def test_twins_of_a_name_are_refused_as_by_discover(onnx_artefact, own_tiny_run, tmp_path):
    images, maps = own_tiny_run.images, tmp_path / "flat"
    maps.mkdir()
    for name in ("000", "001"):
        shutil.copy(own_tiny_run.anomaly_maps / "line" / f"{name}.npy", maps)
    (images / "good" / "001.png").unlink()
    (images / "line" / "001.png").unlink()
    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(maps, images))
    assert classify_folder(classifier, images, tmp_path / "out", pictures=False) == (1, 15, 0)
    errors = [row["error"] for row in rows_of(tmp_path / "out" / "errors.csv") if "000.png" in row["image"]]
    assert len(errors) == 3
    assert all("Several images are called '000'" in error for error in errors)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_pipes_and_swapped_maps_are_rows(onnx_artefact, own_tiny_run, tmp_path):
    images, maps = own_tiny_run.images / "line", own_tiny_run.anomaly_maps / "line"
    (images / "000.png").rename(os.fsdecode(os.fsencode(images) + b"/m\xfcller.png"))
    (images / "001.png").unlink()
    os.mkfifo(images / "001.png")
    cv2.imwrite(str(images / "002.png"), np.zeros((32, 64, 3), np.uint8))
    np.save(maps / "002.npy", np.zeros((64, 32), np.float32))
    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(maps, images))
    assert classify_folder(classifier, images, tmp_path / "out") == (3, 3, 0)
    errors = {Path(row["image"]).name: row["error"] for row in rows_of(tmp_path / "out" / "errors.csv")}
    assert "is not UTF-8" in errors[r"m\xfcller.png"]
    assert "is no regular file" in errors["001.png"]
    assert "the image is 64x32 pixels and its anomaly map 32x64" in errors["002.png"]


def test_results_among_the_images_are_no_input(onnx_artefact, own_tiny_run):
    images = own_tiny_run.images
    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(own_tiny_run.anomaly_maps, images))
    assert classify_folder(classifier, images, images / "out") == (18, 0, 0)
    assert list((images / "out").rglob("*.jpg")) + list((images / "out").rglob("*.png"))
    assert classify_folder(classifier, images, images / "out") == (0, 0, 18)


def test_results_of_another_detector_are_refused(onnx_artefact, tiny_run, tmp_path):
    class Retrained:
        def __init__(self, sha256):
            self.sha256 = sha256

        def detect(self, images, paths):
            return [image[..., 0] for image in images]

    images = tiny_run.images / "line"
    classify_folder(AnomalyClassifier.load(onnx_artefact, Retrained("a")), images, tmp_path, pictures=False)
    with pytest.raises(ValueError, match="holds results of another classifier, detector"):
        classify_folder(AnomalyClassifier.load(onnx_artefact, Retrained("b")), images, tmp_path, pictures=False)
    again = AnomalyClassifier.load(onnx_artefact, Retrained("a"))
    assert classify_folder(again, images, tmp_path, pictures=False) == (0, 0, 6)


def test_a_detector_that_fails_is_tried_again_in_a_watch(onnx_artefact, tiny_run, tmp_path):
    """A network call that fails now and then costs nothing; an image that always fails is given up."""
    calls = []

    def detector(pixels):
        calls.append(pixels[0, 0, 0])
        if len(calls) < 8 or pixels[0, 0, 0] == 7:
            msg = "The detector's server doesn't answer."
            raise ConnectionError(msg)
        return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120

    images = shutil.copytree(tiny_run.images / "line", tmp_path / "images")
    bad = cv2.imread(str(images / "000.png"))
    bad[0, 0] = 7
    cv2.imwrite(str(images / "000.png"), bad)
    classifier = AnomalyClassifier.load(onnx_artefact, detector)
    options = {"watch": QUICK, "poll_seconds": 0.01, "stop_after_idle": 0.3, "pictures": False}
    assert classify_folder(classifier, images, tmp_path / "out", **options) == (5, 1, 0)
    [row] = rows_of(tmp_path / "out" / "errors.csv")
    assert row["error"] == "The detector's server doesn't answer."
    assert Path(row["image"]).name == "000.png"


def test_a_file_without_permission_is_a_row(classifier, tiny_run, tmp_path, monkeypatch):
    real = Path.read_bytes

    def read_unless_forbidden(path):
        if path.name == "003.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_unless_forbidden)
    assert classify_folder(classifier, tiny_run.images / "line", tmp_path, pictures=False) == (5, 1, 0)
    assert "Permission denied" in rows_of(tmp_path / "errors.csv")[0]["error"]


def test_a_camera_is_followed(classifier, tiny_run, tmp_path):
    """Files come half-written, twice, under hidden names, and vanish; each image is there once."""
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    sources = sorted(tiny_run.images.rglob("*.png"))

    def camera():
        for number, source in enumerate(sources):
            data, target = source.read_bytes(), images / f"{number:02d}.png"
            if number % 3 == 0:  # in two parts
                target.write_bytes(data[: len(data) // 2])
                time.sleep(0.03)
                with target.open("ab") as stream:
                    stream.write(data[len(data) // 2 :])
            elif number % 3 == 1:  # under a hidden name, then moved
                (images / f".{number}.png").write_bytes(data)
                (images / f".{number}.png").rename(target)
            else:  # twice
                target.write_bytes(data)
                time.sleep(0.1)
                target.write_bytes(data)
        (images / "gone.png").write_bytes(b"x")
        (images / "gone.png").unlink()
        (images / "cut.png").write_bytes(sources[0].read_bytes()[:200])

    writer = threading.Thread(target=camera)
    writer.start()
    counts = classify_folder(
        classifier,
        images,
        output,
        watch=QUICK,
        poll_seconds=0.02,
        stop_after_idle=1.5,
        pictures=False,
    )
    writer.join()
    assert counts.classified >= 18  # what is written twice may be classified twice
    assert (counts.failed, counts.before) == (1, 0)
    names = [Path(row["image"]).name for row in rows_of(output / "predictions.csv")]
    assert sorted(names) == [f"{number:02d}.png" for number in range(18)]
    wanted = [classifier.predict(source).class_name for source in sources]
    assert [classes_in(output)[f"{number:02d}.png"] for number in range(18)] == wanted


def test_a_map_that_is_half_written_is_looked_at_again_in_a_watch(onnx_artefact, own_tiny_run, tmp_path):
    images, maps = own_tiny_run.images / "line", own_tiny_run.anomaly_maps / "line"
    whole = (maps / "003.npy").read_bytes()
    (maps / "003.npy").write_bytes(whole[:500])

    def finish():
        time.sleep(1)
        (maps / "003.npy").write_bytes(whole)

    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(maps, images))
    writer = threading.Thread(target=finish)
    writer.start()
    arguments = {"watch": QUICK, "poll_seconds": 0.02, "stop_after_idle": 2, "pictures": False}
    counts = classify_folder(classifier, images, tmp_path, **arguments)
    writer.join()
    assert counts.classified == 6
    assert rows_of(tmp_path / "errors.csv") == []


def test_a_killed_process_loses_nothing_and_does_nothing_twice(onnx_artefact, tiny_run, tmp_path):
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number in range(90):
        pixels = cv2.imread(str(tiny_run.images / "square" / f"00{number % 6}.png"))
        pixels[0, 0] = number
        cv2.imwrite(str(images / f"{number:03d}.png"), pixels)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(onnx_artefact), str(images), str(output)]
    log, seen = output / "results.sqlite-wal", 0
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout.readline() == b"ready\n"
            while not log.is_file() or log.stat().st_size <= seen:
                time.sleep(0.005)
            time.sleep(0.15)
            process.send_signal(signal.SIGKILL)
        seen = log.stat().st_size
    store = ResultStore(output / "results.sqlite", AnomalyClassifier.load(onnx_artefact, lambda _: _).sha256)
    done = len(store)
    store.close()
    assert 0 < done < 90
    rest = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"classified={90 - done}, failed=0, before={done}" in rest.stdout
    for name, count in (("predictions.csv", 90), ("errors.csv", 0)):
        found = [row["image"] for row in rows_of(output / name)]
        assert len(found) == len(set(found)) == count
    whole = tmp_path / "whole"
    subprocess.run([*command[:-1], str(whole)], env=environment, check=True)
    for name in ("predictions.csv", "regions.csv", "results.jsonl"):
        assert (output / name).read_bytes() == (whole / name).read_bytes()


def test_a_missing_folder_is_named(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no image folder"):
        classify_folder(classifier, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
