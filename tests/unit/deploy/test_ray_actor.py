# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import anomalib_ncd
from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.deploy.image_files import image_files
from anomalib_ncd.deploy.ray_actor import RayClassifier, classify_dataset

COLUMNS = {"image", "class", "confidence", "normal", "unknown", "error", "result"}


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="needs the extra [ray]")
    pytest.importorskip("ray.data", reason="needs the extra [ray]")
    root = str(Path(anomalib_ncd.__file__).parents[1])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
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
    paths = sorted(image_files(tiny_run.images))[:3]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    batch = {"image": np.array([str(path) for path in [*paths, broken]])}
    columns = RayClassifier(str(onnx_artefact), function_detector)(batch)
    assert set(columns) == COLUMNS
    rows = [{name: values[index] for name, values in columns.items()} for index in range(4)]
    assert_each_once_and_equal(rows[:3], expected_of(onnx_artefact, function_detector, paths))
    assert "broken.png" in rows[3]["error"]
    assert (rows[3]["class"], rows[3]["image"]) == ("", str(broken))


def test_two_workers_see_every_image_once(ray, onnx_artefact, tiny_run):
    def grey(pixels):
        return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120

    paths = sorted(image_files(tiny_run.images))
    rows = classify_dataset(paths, onnx_artefact, detector=grey, num_workers=2, batch_size=4).take_all()
    assert_each_once_and_equal(rows, expected_of(onnx_artefact, grey, paths))


def test_a_killed_worker_loses_nothing(ray, onnx_artefact, tiny_run, tmp_path):
    flag = tmp_path / "killed"

    def grey_but_deadly_once(pixels):
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120

    paths = sorted(image_files(tiny_run.images))
    dataset = classify_dataset(paths, onnx_artefact, detector=grey_but_deadly_once, num_workers=2, batch_size=4)
    rows = dataset.take_all()
    assert flag.exists()
    assert_each_once_and_equal(rows, expected_of(onnx_artefact, grey_but_deadly_once, paths))


def test_without_ray_the_extra_is_named(onnx_artefact, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.setitem(__import__("sys").modules, "ray.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib-ncd\[ray\]'"):
        classify_dataset([], onnx_artefact)
