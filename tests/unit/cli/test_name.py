# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import logging
import shutil

import pytest
import torch

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.cli.main import main
from anomalib_ncd.models.torch_model import AnomalyNcdModel
from anomalib_ncd.results.run_results import RunResults

FILES = ("predictions.csv", "regions.csv", "metrics.json", "gallery.png", "report.html")
SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--num_novel_classes", "3"]


def discover(run, output, *more):
    args = ["discover", "--images", str(run.images), "--anomaly_maps", str(run.anomaly_maps), "--labels", "folders"]
    main([*args, "--output", str(output), "--accelerator", "cpu", "--max_epochs", "1", *SMALL, *more])


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """Folder of a trained run; tests copy it."""
    output = tmp_path_factory.mktemp("finished") / "run"
    discover(tiny_run, output)
    return output


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def write_names(file, **given):
    file.write_text(json.dumps(given))
    return file


def test_names_appear_everywhere(run, monkeypatch):
    monkeypatch.setattr(AnomalyNcdModel, "classify", None)  # nothing is predicted again
    write_names(run / "class_names.json", names={"class_1": "Riß & Sohn", "class_2": "Beule"})
    before = {name: rows_of(run / name) for name in ("predictions.csv", "regions.csv")}
    main(["name", str(run)])
    called = {"normal": "normal", "class_1": "Riß & Sohn", "class_2": "Beule"}
    for name, rows in before.items():
        renamed = [row | {"class": called[row["class"]]} for row in rows]
        if "classes" in rows[0]:
            renamed = [row | {"classes": ";".join(map(called.get, row["classes"].split(";")))} for row in renamed]
        assert rows_of(run / name) == renamed
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["image"]["matching"]) <= set(called.values())
    report = (run / "report.html").read_text()
    assert "Riß &amp; Sohn" in report
    assert 'value="Beule"' in report
    assert torch.load(run / "model.ckpt", weights_only=True)["anomalib_ncd"]["slots"]["given_names"] == list(
        called.values()
    )
    assert AnomalyNcd.load_from_checkpoint(run / "model.ckpt").class_names == list(called.values())


def test_classes_that_are_the_same_are_scored_and_counted_as_one(run):
    write_names(run / "class_names.json", names={"class_1": "dent"}, same=[["class_1", "class_2"]])
    main(["name", str(run)])
    rows = rows_of(run / "predictions.csv")
    assert {row["class"] for row in rows} <= {"normal", "dent"}
    probabilities = RunResults.load(run / "results.npz").batch.class_probabilities
    dent = probabilities[:, 1:].sum(1)
    expected = torch.maximum(dent, probabilities[:, 0])
    found = torch.tensor([float(row["confidence"]) for row in rows])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    counts = json.loads((run / "metrics.json").read_text())["image"]["confusion"]
    assert sum(inner.get("dent", 0) for inner in counts.values()) == sum(row["class"] == "dent" for row in rows)


def test_names_of_another_file_are_kept_in_the_run(run, tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    file = write_names(tmp_path / "download (1).json", names={"class_2": "dent"})
    main(["name", str(run), "--names", str(file)])
    assert json.loads((run / "class_names.json").read_text())["names"] == {"class_2": "dent"}
    assert "are called normal, class_1, dent now" in caplog.text
    assert str(run / "report.html") in caplog.text


def test_facts_and_the_normal_slot_outlast_other_names(run):
    before = json.loads((run / "metrics.json").read_text())
    write_names(run / "class_names.json", names={"normal": "false alarm", "class_1": "a"})
    main(["name", str(run)])
    after = json.loads((run / "metrics.json").read_text())
    assert after["image"]["normal"] == before["image"]["normal"]
    assert after["region"]["normal"] == before["region"]["normal"]
    assert after["image"]["normal"]["false_alarms"] == 6
    assert after["facts"] == before["facts"]
    assert "What is known without labels" in (run / "report.html").read_text()
    # A defect that is said to be normal counts as such; the slot stays the first one.
    write_names(run / "class_names.json", same=[["normal", "class_1", "class_2"]])
    main(["name", str(run)])
    assert json.loads((run / "metrics.json").read_text())["image"]["normal"]["recall"] == 1
    assert RunResults.load(run / "results.npz").normal_slot == 0
    assert AnomalyNcd.load_from_checkpoint(run / "model.ckpt").class_names == ["normal"] * 3


def test_names_can_be_taken_back(run):
    before = contents(run)
    file = write_names(run / "class_names.json", names={"class_1": "a"}, same=[["class_1", "class_2"]])
    main(["name", str(run)])
    assert contents(run) != before
    write_names(file)
    main(["name", str(run)])
    assert contents(run) == before
    assert AnomalyNcd.load_from_checkpoint(run / "model.ckpt").class_names == ["normal", "class_1", "class_2"]


def test_a_run_that_is_started_again_uses_the_names(tiny_run, tmp_path):
    output = tmp_path / "run"
    discover(tiny_run, output)
    write_names(output / "class_names.json", names={"class_1": "a", "class_2": "b"})
    discover(tiny_run, output)
    assert {row["class"] for row in rows_of(output / "regions.csv")} <= {"normal", "a", "b"}
    assert AnomalyNcd.load_from_checkpoint(output / "model.ckpt").class_names == ["normal", "a", "b"]


def test_runs_without_a_checkpoint_are_named(tiny_run, tmp_path):
    discover(tiny_run, tmp_path, "--method", "cluster")
    write_names(tmp_path / "class_names.json", same=[["normal", "class_2"]])
    main(["name", str(tmp_path)])
    assert {row["class"] for row in rows_of(tmp_path / "regions.csv")} == {"class_1", "normal"}


def test_wrong_names_change_nothing(run, tiny_run):
    before = contents(run)
    write_names(run / "class_names.json", names={"class_7": "a"})
    with pytest.raises(SystemExit, match=r"class_names.json: \"names\" speaks of 'class_7'"):
        main(["name", str(run)])
    with pytest.raises(SystemExit, match="speaks of 'class_7'"):
        discover(tiny_run, run)
    assert contents(run) == before


def test_what_is_missing_is_named(run, tmp_path):
    with pytest.raises(SystemExit, match="finished run of `anomalib-ncd discover`"):
        main(["name", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"no file .*class_names.json; save it from the report"):
        main(["name", str(run)])
    write_names(run / "class_names.json", names={"class_1": "a"})
    before = contents(run)
    shutil.rmtree(run / "regions")
    with pytest.raises(SystemExit, match="lacks the regions of"):
        main(["name", str(run)])
    assert contents(run) == before
