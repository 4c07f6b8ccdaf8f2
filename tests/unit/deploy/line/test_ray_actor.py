# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import importlib.util
import json
import os
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import anomalib_ncd
from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.deploy.line.ray_actor import RayClassifier, classify_dataset
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files

EXAMPLE = Path(anomalib_ncd.__file__).parents[1] / "examples" / "ray_archive.py"
COLUMNS = {"image", "class", "confidence", "normal", "unknown", "error", "result"}


@pytest.fixture(scope="module")
def ray():
    """A local Ray of two cores, whose workers find this very package."""
    ray = pytest.importorskip("ray", reason="needs the extra [ray]")
    pytest.importorskip("ray.data", reason="needs the extra [ray]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(anomalib_ncd.__file__).parents[1]))
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else its workers wait for the tests of other processes
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


def expected_of(artefact, detector, paths):
    classifier = AnomalyClassifier.load(artefact, detector, keep_masks=False)
    return {result.image: result.to_dict() for result in classifier.stream(paths)}


def assert_each_once_and_equal(rows, expected):
    assert sorted(row["image"] for row in rows) == sorted(expected)
    for row in rows:
        found, wanted = json.loads(row["result"]), expected[row["image"]]
        assert row["error"] == ""
        assert (row["class"], found["class_id"]) == (wanted["class"], wanted["class_id"])
        assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
        assert [region["box_xyxy"] for region in found["regions"]] == [r["box_xyxy"] for r in wanted["regions"]]


def test_an_actor_classifies_a_batch_of_paths(onnx_artefact, tiny_run, tmp_path, function_detector):
    paths = sorted(find_files(tiny_run.images, IMAGE_SUFFIXES))[:3]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    batch = {"image": np.array([str(path) for path in [*paths, broken]])}
    columns = RayClassifier(str(onnx_artefact), function_detector)(batch)
    assert set(columns) == COLUMNS
    rows = [{name: values[index] for name, values in columns.items()} for index in range(4)]
    assert_each_once_and_equal(rows[:3], expected_of(onnx_artefact, function_detector, paths))
    assert "broken.png" in rows[3]["error"]
    assert (rows[3]["class"], rows[3]["image"]) == ("", str(broken))


def test_a_name_that_is_not_utf8_is_a_row(onnx_artefact, tiny_run, tmp_path, function_detector):
    name = os.fsencode(tmp_path) + b"/m\xfcller.png"
    Path(os.fsdecode(name)).write_bytes((tiny_run.images / "line" / "003.png").read_bytes())
    columns = RayClassifier(str(onnx_artefact), function_detector)({"image": np.array([name], dtype=object)})
    assert columns["image"].tolist() == [f"{tmp_path}/m\\xfcller.png"]
    assert "is not UTF-8" in columns["error"][0]


@pytest.fixture
def ray_archive():
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location("ray_archive", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_workers_of_whom_one_is_killed_see_every_image_once(
    ray, ray_archive, onnx_artefact, tiny_run, tmp_path, monkeypatch
):
    parquet = pytest.importorskip("pyarrow.parquet")
    workers, killed, output = tmp_path / "workers", tmp_path / "killed", tmp_path / "results"
    workers.mkdir()

    def grey_but_deadly_once(pixels):
        (workers / str(os.getpid())).touch()
        time.sleep(0.05)  # so that one worker can't take all before the other has started
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120

    monkeypatch.setattr(ray_archive, "classify_dataset", partial(classify_dataset, detector=grey_but_deadly_once))
    flags = ["--images", str(tiny_run.images), "--output", str(output), "--batch_size", "2"]
    ray_archive.main([str(onnx_artefact), *flags])
    assert killed.exists()
    assert len(list(workers.iterdir())) == 3  # two, and the one in the place of the killed one
    expected = expected_of(onnx_artefact, grey_but_deadly_once, sorted(find_files(tiny_run.images, IMAGE_SUFFIXES)))
    assert_each_once_and_equal(parquet.read_table(output).to_pylist(), expected)
    # A stop of everything: what was cut off or not begun is done by the same command, and nothing else.
    first, second, *others = sorted(output.glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-20])
    second.unlink()
    before = {file: file.stat().st_mtime_ns for file in others}
    for _ in range(2):
        ray_archive.main([str(onnx_artefact), *flags])
    assert_each_once_and_equal(parquet.read_table(output).to_pylist(), expected)
    assert {file: file.stat().st_mtime_ns for file in others} == before


def test_the_example_classifies_with_the_packed_detector_and_counts_classes(
    ray, ray_archive, artefact, tiny_run, tmp_path, capsys
):
    flags = ["--images", str(tiny_run.images), "--output", str(tmp_path / "results"), "--num_workers", "1"]
    ray_archive.main([str(artefact), *flags])
    printed = capsys.readouterr().out
    counts = {name: int(count) for name, _, count in (line.rpartition(": ") for line in printed.splitlines())}
    wanted = AnomalyClassifier.load(artefact).predict(tiny_run.images)
    assert counts == Counter(result.class_name for result in wanted)


def test_the_example_names_an_empty_archive(ray_archive, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ray_archive.main(["parts.zip", "--images", str(tmp_path), "--output", str(tmp_path / "results")])
    assert f"{tmp_path} holds no images; give `--images`" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(onnx_artefact, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.setitem(__import__("sys").modules, "ray.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib-ncd\[ray\]'"):
        classify_dataset([], onnx_artefact)
