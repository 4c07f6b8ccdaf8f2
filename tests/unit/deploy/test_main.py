# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The command for machines that have NumPy, OpenCV and a runtime alone."""

import csv
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import anomalib_ncd.deploy
from anomalib_ncd.deploy import AnomalyClassifier, Artefact
from anomalib_ncd.deploy import __main__ as command
from anomalib_ncd.deploy.packing.manifest import NetworkEntry

ALONE = """
import importlib.abc, runpy, sys

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        missing = "torch torchvision lightning anomalib timm scipy sklearn PIL matplotlib yaml jsonargparse pandas"
        if name.partition(".")[0] in missing.split():
            raise ModuleNotFoundError(f"{name} is not installed on this machine")

sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("anomalib_ncd.deploy", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def artefact(onnx_artefact, tmp_path_factory):
    """The packed run with a detector in it: how far a pixel is from the grey of the plate."""
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    info, make = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    constant = onnx.helper.make_tensor
    nodes = [
        make("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        make("Sub", ["mean", "grey"], ["difference"]),
        make("Abs", ["difference"], ["distance"]),
        make("Mul", ["distance", "scale"], ["anomaly_map"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "detector",
        [info("image", 1, ["n", 3, "h", "w"])],
        [info("anomaly_map", 1, ["n", 1, "h", "w"])],
        [constant("axes", 7, [1], [1]), constant("grey", 1, [], [120 / 255]), constant("scale", 1, [], [255 / 120])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    contents = {
        "encoder.onnx": (onnx_artefact / "encoder.onnx").read_bytes(),
        "detector.onnx": model.SerializeToString(),
    }
    manifest = replace(Artefact.load(onnx_artefact).manifest, detector=NetworkEntry("onnx", ("detector.onnx",)))
    return Artefact.create(manifest, contents).save(tmp_path_factory.mktemp("light") / "parts.zip")


def classes_in(folder):
    with (folder / "predictions.csv").open(newline="") as stream:
        return {row["image"]: row["class"] for row in csv.DictReader(stream)}


def test_it_works_where_nothing_else_is_installed(artefact, tiny_run, tmp_path):
    root = str(Path(anomalib_ncd.deploy.__file__).parents[2])
    flags = ["--images", str(tiny_run.images), "--output", str(tmp_path), "--num_threads", "1"]
    result = subprocess.run(
        [sys.executable, "-c", ALONE, root, str(artefact), *flags], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "18 images classified, 0 could not be used, 0 were done before." in result.stderr
    wanted = AnomalyClassifier.load(artefact).predict(tiny_run.images)
    assert classes_in(tmp_path) == {result.image: result.class_name for result in wanted}


def test_limits_and_digest_are_kept_to(artefact, tiny_run, tmp_path):
    flags = [str(artefact), "--images", str(tiny_run.images / "line"), "--output", str(tmp_path)]
    assert command.main([*flags, "--max_pixels", "4000"]) == (0, 6, 0)
    assert "more than the limit of 4,000" in (tmp_path / "errors.csv").read_text()
    with pytest.raises(ValueError, match="it is another one or was tampered with"):
        command.main([*flags, "--sha256", "0" * 64])


@pytest.mark.parametrize(("more", "status"), [(["--watch"], None), ([], 130)])
def test_a_stop_is_no_success_but_for_a_watch(artefact, tiny_run, tmp_path, monkeypatch, more, status):
    monkeypatch.setattr(command, "classify_folder", lambda *args, **kwargs: signal.raise_signal(signal.SIGTERM))
    flags = [str(artefact), "--images", str(tiny_run.images), "--output", str(tmp_path), *more]
    if status is None:
        assert command.main(flags) is None
        return
    with pytest.raises(SystemExit) as stopped:
        command.main(flags)
    assert stopped.value.code == status
