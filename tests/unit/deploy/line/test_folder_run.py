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
from anomalib_ncd.deploy.line.folder_run import classify_folder
from anomalib_ncd.deploy.line.folder_watch import WatchOptions
from anomalib_ncd.deploy.line.map_folder import MapFolder

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
    assert len(rows_of(tmp_path / "regions.csv")) == sum(len(one.regions) for one in wanted.values())
    assert len(list((tmp_path / "pictures").rglob("*.jpg"))) == 18


def test_bad_files_are_listed_and_not_tried_again(classifier, tiny_run, tmp_path):
    images = shutil.copytree(tiny_run.images / "line", tmp_path / "images")
    (images / "broken.png").write_bytes(b"no picture")
    assert classify_folder(classifier, images, tmp_path / "out") == (6, 1, 0)
    assert classify_folder(classifier, images, tmp_path / "out") == (0, 0, 7)
    [row] = rows_of(tmp_path / "out" / "errors.csv")
    assert row["image"].endswith("broken.png")
    assert "no image file" in row["error"]


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
    assert classify_folder(classifier, images, tmp_path, pictures=False) == (odd, 0, 6)
    assert (len(rows_of(tmp_path / "predictions.csv")), len(rows_of(tmp_path / "errors.csv"))) == (6, 0)


def test_a_map_that_was_missing_is_looked_for_again(onnx_artefact, own_tiny_run, tmp_path):
    images, maps = own_tiny_run.images / "line", own_tiny_run.anomaly_maps / "line"
    (maps / "003.npy").rename(tmp_path / "late.npy")
    classifier = AnomalyClassifier.load(onnx_artefact, MapFolder(maps, images))
    assert classify_folder(classifier, images, tmp_path / "out", pictures=False) == (5, 1, 0)
    assert "has no anomaly map" in rows_of(tmp_path / "out" / "errors.csv")[0]["error"]
    (tmp_path / "late.npy").rename(maps / "003.npy")
    assert classify_folder(classifier, images, tmp_path / "out", pictures=False) == (1, 0, 6)
    assert rows_of(tmp_path / "out" / "errors.csv") == []


def test_a_camera_is_followed(classifier, tiny_run, tmp_path):
    """Files come half-written, twice, under hidden names, and vanish; each image is classified once."""
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
    assert counts == (18, 1, 0)
    names = [Path(row["image"]).name for row in rows_of(output / "predictions.csv")]
    assert sorted(names) == [f"{number:02d}.png" for number in range(18)]
    wanted = [classifier.predict(source).class_name for source in sources]
    assert [classes_in(output)[f"{number:02d}.png"] for number in range(18)] == wanted


def test_a_killed_process_loses_nothing_and_does_nothing_twice(onnx_artefact, tiny_run, tmp_path):
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number in range(90):
        pixels = cv2.imread(str(tiny_run.images / "square" / f"00{number % 6}.png"))
        pixels[0, 0] = number
        cv2.imwrite(str(images / f"{number:03d}.png"), pixels)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(onnx_artefact), str(images), str(output)]
    journal, seen = output / "results.jsonl", 0
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout.readline() == b"ready\n"
            while not journal.is_file() or journal.stat().st_size <= seen:
                time.sleep(0.005)
            time.sleep(0.15)
            process.send_signal(signal.SIGKILL)
        seen = journal.stat().st_size
        assert 0 < len(journal.read_text().splitlines()) < 90
    done = len(journal.read_text().splitlines())
    rest = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"classified={90 - done}, failed=0, before={done}" in rest.stdout
    for name, count in (("predictions.csv", 90), ("errors.csv", 0)):
        found = [row["image"] for row in rows_of(output / name)]
        assert len(found) == len(set(found)) == count


def test_a_missing_folder_is_named(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no image folder"):
        classify_folder(classifier, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
