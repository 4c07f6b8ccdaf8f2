# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Every case of the benchmarks is one that can be run, and the tables of the docs are what the results say."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import timm

from anomalib_ncd import AnomalyNcd, NcdDataModule

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import data_sets  # noqa: E402
import leave_one_out  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402
import scores  # noqa: E402
import tables  # noqa: E402
from cases import CASES, Setup  # noqa: E402

RUNS = [case for case in CASES.values() if case.topic in {"discovery", "base_sets", "held_out", "unknown"}]
RUNS += [case for case in CASES.values() if case.topic == "number_of_classes"]


@pytest.fixture
def data(tmp_path):
    """A folder in the shape of the data sets, as far as cases look into it."""
    mtd = ("mtd/train/good", "mtd/test/good", "mtd_anomaly_maps")
    for folder in (*mtd, "steel_base", "transistor/normal", "deeppcb/normal"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mtd" / "train" / "good" / "exp1_num_7.jpg").touch()
    (tmp_path / "mtd" / "train" / "good" / "exp1_num_207.jpg").touch()
    (tmp_path / "mtd" / "test" / "good" / "exp1_num_9.jpg").touch()
    return tmp_path


@pytest.fixture(autouse=True)
def undrawn_plates(monkeypatch):
    """Plates are drawn as small as they come."""
    drawn = data_sets.generate_dataset
    few = {"num_train_good": 1, "num_test_good": 1, "num_per_kind": 1, "num_per_base_kind": 1, "size": 64}
    monkeypatch.setattr(data_sets, "generate_dataset", lambda folder, **given: drawn(folder, **given | few))


def test_names_tell_cases_apart_and_every_topic_is_a_table():
    assert all(case.name == name for name, case in CASES.items())
    assert {case.topic for case in CASES.values()} == set(tables.TABLES)
    assert {case.measure for case in CASES.values()} <= set(run.MEASURES)
    labels = [(case.topic, case.label) for case in CASES.values()]
    assert len(labels) == len(set(labels))
    for case in CASES.values():
        assert case.label.count("|") == tables.TABLES[case.topic].labels.count("|"), case.name


def test_the_datamodule_takes_every_case(data, tmp_path):
    for case in RUNS:
        arguments = data_sets.datamodule_arguments(case, data, tmp_path / "work")
        datamodule = NcdDataModule(**arguments, seed=0)
        assert datamodule.labels == (None if case.data == "deeppcb" else "folders")
        assert (datamodule.normal_images is not None) == bool(case.normal or case.base == "synthetic"), case.name
        assert (datamodule.base is not None) == (case.base is not None), case.name


def test_the_model_takes_every_case():
    signature = inspect.signature(AnomalyNcd)
    made = {}
    for case in RUNS:
        arguments = scores.model_arguments(case, Path("weights"))
        signature.bind(**arguments)
        assert all(name == "offline" or timm.is_model(name) for name in case.backbone.split("+"))
        key = (case.backbone, case.training, case.num_novel_classes)
        made.setdefault(key, arguments | {"backbone_weights": None, "pretrained": False})
    for arguments in made.values():
        AnomalyNcd(**arguments)


def test_a_case_needs_its_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs `--data`"):
        data_sets.datamodule_arguments(CASES["discovery-mini-lite-cluster"], None, tmp_path)


def test_other_tiles_are_those_that_no_test_image_is_near(data, tmp_path):
    linked = data_sets.link_other_tiles(data, tmp_path / "linked")
    assert [path.name for path in linked.iterdir()] == ["exp1_num_207.jpg"]


def test_patterns_choose_cases():
    assert [case.name for case in run.chosen(["help"])] == ["help"]
    assert len(run.chosen(["mebin-*"])) == 6
    with pytest.raises(ValueError, match="No case fits 'nothing'"):
        run.chosen(["help", "nothing"])


def test_results_become_rows(monkeypatch, tmp_path):
    monkeypatch.setitem(run.MEASURES, "help_seconds", lambda case, setup: {"seconds": 1.23456})
    [row] = run.measure(CASES["help"], Setup(None, None, tmp_path, seed=3))
    assert (row.case, row.seed, row.metric, row.value, row.command) == ("help", "3", "seconds", 1.2346, "")
    assert row.machine
    assert len(row.commit.rstrip("+")) >= 7


def _row(**changed):
    values = {"case": "help", "seed": "0", "metric": "seconds", "value": 2.0, "spread": "", "commit": "aaaaaaa"}
    rest = {"date": "2026-01-01", "processor_seconds": "2.0", "machine": "2 x a processor"}
    return rows.Row(**(values | rest | changed))


def test_rows_are_added_and_read_again(tmp_path):
    file = tmp_path / "speed_command.csv"
    rows.append(file, [_row()])
    rows.append(file, [_row(seed="1", value=4.0)])
    assert rows.read(file) == [_row(), _row(seed="1", value=4.0)]
    file.write_text("case,value\n")
    with pytest.raises(ValueError, match="must have the columns"):
        rows.read(file)


def test_tables_show_the_commit_measured_last(tmp_path):
    assert tables.render("speed_command", tmp_path) == "Nothing is measured yet.\n"
    file = tmp_path / "speed_command.csv"
    rows.append(file, [_row(value=9.0, command="python old.py")])
    assert "| 9 |  |  | 1 | aaaaaaa† |" in tables.render("speed_command", tmp_path)
    rows.append(file, [_row(commit="bbbbbbb"), _row(commit="bbbbbbb", seed="1", value=4.0)])
    assert "| 3 ± 1.414 |  |  | 2 | bbbbbbb |" in tables.render("speed_command", tmp_path)


def test_each_data_set_is_left_out_of_the_choice(tmp_path):
    assert leave_one_out.render(tmp_path) == "Nothing is measured yet.\n"
    found = []
    for data, images in leave_one_out.MEASURED_ON.items():
        for way, value in (("cluster", 0.9 if data == "plates" else 0.5), (f"cluster-{images}", 0.6)):
            case = {"case": f"discovery-{data}-lite-{way}", "value": value}
            found += [_row(**case, metric="nmi"), _row(**case, metric="accuracy")]
    rows.append(tmp_path / "discovery.csv", found)
    mini, *_, plates, _ = leave_one_out.render(tmp_path).splitlines()[2:]
    plain, good = "EfficientNet-Lite0, plain", "EfficientNet-Lite0, good images"
    assert mini == f"| MTD-mini | {plain} | 0.500, 0.500 | 0.600, 0.600 | 0.600, 0.600 | {good} |"
    assert plates == f"| drawn plates | {good} | 0.600, 0.600 | 0.600, 0.600 | 0.900, 0.900 | {plain} |"


def test_markers_take_their_table(tmp_path):
    doc = tmp_path / "page.md"
    doc.write_text("Before\n<!-- table: speed_command -->\nold\n<!-- end -->\nafter\n")
    assert not tables.write(doc, tmp_path, check=True)
    assert "old" in doc.read_text()
    tables.write(doc, tmp_path)
    text = "Before\n<!-- table: speed_command -->\nNothing is measured yet.\n<!-- end -->\nafter\n"
    assert doc.read_text() == text
    assert tables.write(doc, tmp_path)
    doc.write_text("<!-- table: nothing -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="asks for the table 'nothing'"):
        tables.write(doc, tmp_path)


def test_tables_of_the_docs_are_what_the_results_say():
    assert [file.name for file in tables.DOCS.rglob("*.md") if not tables.write(file, tables.RESULTS, check=True)] == []


def test_files_of_the_results_are_those_of_cases():
    for file in tables.RESULTS.glob("*.csv"):
        assert {row.case for row in rows.read(file)} <= {
            name for name, case in CASES.items() if case.topic == file.stem
        }, file.name


def test_unknown_kinds_keep_images_together():
    image = np.repeat(np.arange(8), 2)
    labels = np.repeat([0, 0, 1, 1], 4)
    for half in scores._splits(labels, image, 1):
        chosen = half.numpy().reshape(8, 2)
        assert (chosen[:, 0] == chosen[:, 1]).all()
        assert chosen[:4, 0].sum() == chosen[4:, 0].sum() == 2
