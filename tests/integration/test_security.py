# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What SECURITY.md promises of run folders and checkpoints from elsewhere."""

import io
import os
import pickle
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from anomalib.models import Padim
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Resize

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.cli.main import main
from anomalib_ncd.data.detector_maps import load_detector

SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--num_novel_classes", "3"]


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def tiny_run(tiny_run, tmp_path_factory):
    """Three of the six images of each kind."""
    folder, ignored = tmp_path_factory.mktemp("few"), shutil.ignore_patterns("00[345].*")
    images = shutil.copytree(tiny_run.images, folder / "images", ignore=ignored)
    return replace(
        tiny_run, images=images, anomaly_maps=shutil.copytree(tiny_run.anomaly_maps, folder / "maps", ignore=ignored)
    )


@pytest.fixture(scope="module")
def clean_run(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "run"
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps), "--output", str(folder)]
    main(["discover", *flags, *SMALL, "--method", "cluster", "--accelerator", "cpu"])
    return folder


@pytest.fixture
def run(clean_run, tmp_path):
    return shutil.copytree(clean_run, tmp_path / "run")


@pytest.fixture
def mark(tmp_path):
    """What code from elsewhere would leave behind; there must be no such folder afterwards."""
    mark = tmp_path / "mark"
    yield mark
    assert not mark.exists()


@pytest.fixture
def evil_module(tmp_path, mark, monkeypatch):
    """A module that could be imported and says so."""
    (tmp_path / "evil_module.py").write_text(f"import os\nos.mkdir({str(mark)!r})\ndef run(*_): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "evil_module.run"
    assert "evil_module" not in sys.modules


def all_commands_on(run, tiny_run, tmp_path):
    """Commands that read a run folder; each may end with one line, but in no other way."""
    data = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps)]
    names = tmp_path / "names.json"
    names.write_text('{"names": {"class_1": "dent"}}')
    for number, command in enumerate(
        (
            ["classify", str(run), *data],
            ["extend", str(run), *data],
            ["pack", str(run), "--runtime", "torch"],
            ["name", str(run), "--names", str(names)],
        )
    ):
        output = [] if command[0] == "name" else ["--output", str(tmp_path / f"out{number}")]
        try:
            main([*command, *output])
        except SystemExit as ended:
            message = str(ended.code)
            assert "\n" not in message
            assert "A fault of the program" not in message, message


@pytest.mark.parametrize(
    "settings",
    [
        "detector: !!python/object/apply:os.mkdir ['MARK']",
        "!!python/object/new:os.mkdir ['MARK']",
        "detector: {class_path: evil_module.Detector, ckpt_path: x.ckpt}",
        "detector: [evil_module.Detector]",
        "a: [unclosed",
        "- evil_module",
    ],
)
def test_settings_of_a_run_run_nothing(run, mark, evil_module, tiny_run, tmp_path, settings):
    (run / "config.yaml").write_text(settings.replace("MARK", str(mark)))
    all_commands_on(run, tiny_run, tmp_path)


def test_a_pickled_checkpoint_is_not_unpickled(run, mark, tiny_run, tmp_path):
    torch.save({"state_dict": {}, "anomalib_ncd": {"slots": Payload(mark)}}, run / "model.ckpt")
    all_commands_on(run, tiny_run, tmp_path)
    (run / "model.ckpt").write_bytes(pickle.dumps(Payload(mark)))
    all_commands_on(run, tiny_run, tmp_path)


def test_pickled_results_are_not_unpickled(run, mark, tiny_run, tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, plain=np.array([Payload(mark)], dtype=object))
    (run / "results.npz").write_bytes(buffer.getvalue())
    all_commands_on(run, tiny_run, tmp_path)


def test_checkpoints_name_nothing_to_be_imported(run, mark, evil_module, tiny_run, tmp_path):
    checkpoint = torch.load(run / "model.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["_instantiator"] = evil_module
    torch.save(checkpoint, run / "model.ckpt")
    assert AnomalyNcd.load_from_checkpoint(run / "model.ckpt").class_names
    all_commands_on(run, tiny_run, tmp_path)


def test_detectors_name_nothing_to_be_imported(mark, evil_module, tmp_path):
    arguments = {"backbone": "resnet18", "layers": ["layer1"], "n_features": 10, "pre_trained": False}
    detector = Padim(**arguments, pre_processor=PreProcessor(Resize((64, 64))))
    hyper = {**arguments, "_instantiator": evil_module}
    content = {"state_dict": detector.state_dict(), "hyper_parameters": hyper, "pytorch-lightning_version": "2.6.0"}
    torch.save(content, tmp_path / "detector.ckpt")
    try:
        load_detector(Padim, tmp_path / "detector.ckpt")
    except (RuntimeError, KeyError):  # it is no whole checkpoint
        pytest.fail("the checkpoint was refused for something else")
