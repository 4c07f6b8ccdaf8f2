# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
from dataclasses import replace

import pytest

from anomalib_ncd.runs import detector
from anomalib_ncd.runs.detector import PAPER_BACKBONE, checked_device, choose_backbone, device_of
from anomalib_ncd.runs.folder import (
    CHECKPOINT_FILE,
    RESULT_FILES,
    MadeFrom,
    claim_folder,
    finish,
    notes,
)

TRAINED = MadeFrom({"method": "train", "seed": 0}, {"images": "a", "labels": "b"}, 2)
CLUSTERED = replace(TRAINED, settings={"method": "cluster", "seed": 0})


def leave(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def finished(folder, made_from):
    claim_folder(folder, made_from)
    leave(folder, CHECKPOINT_FILE, *RESULT_FILES)
    finish(folder, ["normal", "dent"])


def test_a_run_begins_goes_on_and_is_finished(tmp_path):
    assert claim_folder(tmp_path / "a" / "b", TRAINED) == "new"
    output = tmp_path / "a" / "b"
    leave(output, CHECKPOINT_FILE)
    assert claim_folder(output, TRAINED) == "begun"
    finished(output, TRAINED)
    assert claim_folder(output, TRAINED, {"seed": 0}) == "finished"
    assert notes(output)["names"] == ["normal", "dent"]
    assert (output / "config.yaml").read_text() == "seed: 0\n"
    (output / "report.html").unlink()
    assert claim_folder(output, TRAINED) == "begun"


def test_more_epochs_go_on_and_other_labels_are_scored(tmp_path):
    finished(tmp_path, TRAINED)
    assert claim_folder(tmp_path, replace(TRAINED, max_epochs=3)) == "begun"
    finished(tmp_path, TRAINED)
    assert claim_folder(tmp_path, replace(TRAINED, inputs={"images": "a", "labels": "c"})) == "begun"


def test_other_settings_are_refused_where_there_is_something(tmp_path):
    other = replace(CLUSTERED, settings={"method": "cluster", "seed": 1, "new": None, "newer": 2})
    claim_folder(tmp_path, CLUSTERED)
    claim_folder(tmp_path, other)  # nothing was found yet
    claim_folder(tmp_path, CLUSTERED)
    leave(tmp_path, CHECKPOINT_FILE)
    with pytest.raises(ValueError, match=r"other settings of \['newer', 'seed'\]; choose another `--output`"):
        claim_folder(tmp_path, other)


def test_other_inputs_make_clusters_anew_but_not_what_was_trained(tmp_path, caplog):
    changed = {"images": "c", "labels": "b"}
    finished(tmp_path / "clustered", CLUSTERED)
    assert claim_folder(tmp_path / "clustered", replace(CLUSTERED, inputs=changed)) == "begun"
    assert "Other images than before: the run in" in caplog.text
    finished(tmp_path / "trained", TRAINED)
    with pytest.raises(ValueError, match="was trained with other images; choose another"):
        claim_folder(tmp_path / "trained", replace(TRAINED, inputs=changed))
    assert claim_folder(tmp_path / "trained", TRAINED) == "finished"


@pytest.mark.parametrize("content", [None, "", "[]", json.dumps({"settings": {}})])
def test_a_run_that_does_not_say_is_refused(tmp_path, content):
    leave(tmp_path, CHECKPOINT_FILE)
    if content is not None:
        (tmp_path / "made_from.json").write_text(content)
    with pytest.raises(ValueError, match="doesn't say what the run in it was made from"):
        claim_folder(tmp_path, TRAINED)


def test_devices():
    assert str(device_of("cpu")) == "cpu"
    assert str(checked_device("cpu")) == "cpu"
    for call, name in (
        (device_of, "tpu"),
        (device_of, "abacus"),
        (checked_device, "cuda:99"),
        (checked_device, "abacus"),
    ):
        with pytest.raises(ValueError, match=f"There is no .* '{name}' here"):
            call(name)


@pytest.mark.parametrize(
    ("weights", "before", "cached", "installed", "chosen"),
    [
        (None, None, True, True, PAPER_BACKBONE),
        (None, None, False, True, "offline"),
        (None, None, False, False, PAPER_BACKBONE),
        ("vit.safetensors", None, False, True, PAPER_BACKBONE),
        (None, "resnet18", True, True, "resnet18"),
    ],
)
def test_the_backbone_that_is_at_hand(monkeypatch, caplog, weights, before, cached, installed, chosen):
    caplog.set_level("INFO")
    monkeypatch.setattr(detector, "is_cached", lambda _: cached)
    monkeypatch.setattr(detector, "find_spec", lambda _: object() if installed else None)
    assert choose_backbone(weights, before) == chosen
    assert ("Backbone: " in caplog.text) == (weights is None and before is None)
