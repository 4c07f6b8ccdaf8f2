# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import subprocess
import sys
from pathlib import Path

import pytest

import anomalib_ncd.deploy
from anomalib_ncd.deploy import AnomalyClassifier, Artefact

CODE = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from anomalib_ncd.deploy import AnomalyClassifier, ImageLimits, load_detector_file
from anomalib_ncd.deploy.line.folder_run import classify_folder
classifier = AnomalyClassifier.load({artefact!r}, lambda image: np.abs(image.mean(axis=2) - 120) / 120)
image = np.full((64, 64, 3), 120, np.uint8)
image[20:40, 20:40] = 230
result = classifier.predict(image)
assert len(result.regions) == 1, result
assert classify_folder(classifier, {images!r}, {output!r}, pictures=False).classified == 18
heavy = {{"torch", "torchvision", "lightning", "pytorch_lightning", "anomalib", "timm", "scipy", "sklearn"}}
found = sorted(heavy & {{name.partition(".")[0] for name in sys.modules}})
sys.exit(f"imported {{found}}" if found else 0)
"""


ALONE = """
import importlib.abc, sys

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        missing = "torch torchvision lightning pytorch_lightning anomalib timm scipy sklearn matplotlib pandas"
        if name.partition(".")[0] in missing.split():
            raise ModuleNotFoundError(f"{name} is not installed on this machine", name=name)

sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv.pop(1))
from anomalib_ncd.cli.main import main
main()
"""


@pytest.mark.parametrize("runtime", ["onnx_artefact", "openvino_artefact"])
def test_prediction_imports_neither_torch_nor_lightning_nor_anomalib(runtime, request, tiny_run, tmp_path):
    root = str(Path(anomalib_ncd.deploy.__file__).parents[2])
    artefact = str(request.getfixturevalue(runtime))
    code = CODE.format(root=root, artefact=artefact, images=str(tiny_run.images), output=str(tmp_path))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_command_works_where_nothing_else_is_installed(artefact, tiny_run, tmp_path):
    root = str(Path(anomalib_ncd.deploy.__file__).parents[2])
    flags = ["classify", str(artefact), "--images", str(tiny_run.images), "--output", str(tmp_path)]
    command = [sys.executable, "-c", ALONE, root, *flags, "--sha256", Artefact.load(artefact).sha256]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "18 images classified, 0 could not be used, 0 were done before." in result.stderr
    assert result.stderr.count("No pictures are drawn, for which matplotlib would have to be installed") == 1
    wanted = AnomalyClassifier.load(artefact).predict(tiny_run.images)
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        found = {row["image"]: row["class"] for row in csv.DictReader(stream)}
    assert found == {result.image: result.class_name for result in wanted}


def test_exports_exist():
    names = anomalib_ncd.deploy.__all__
    assert all(hasattr(anomalib_ncd.deploy, name) for name in names)
