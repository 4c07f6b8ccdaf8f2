# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.runs.files import gather_results, score, write_run_files
from anomalib_ncd.runs.folder import MadeFrom
from anomalib_ncd.settings import TrainingSettings

SLOTS = ["class_1", "class_2", "class_3"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )


@pytest.fixture(scope="module")
def gathered(model, tiny_run, tmp_path_factory):
    """Results of a run and where they came from; tests only read them."""
    output = tmp_path_factory.mktemp("gathered")
    data = NcdDataModule(
        tiny_run.images,
        tiny_run.anomaly_maps,
        labels="folders",
        work_dir=output,
        eval_batch_size=5,
    )
    return gather_results(discover_by_clustering(model, data), data, RegionMerging(tuple(SLOTS)), output), data


def test_results_hold_all_images_in_order(gathered):
    results, data = gathered
    assert results.image_keys == [record.key for record in data.records]
    assert results.batch.image_path == [str(record.path) for record in data.records]
    assert results.batch.region_feature.shape == (len(data.region_table()), 64)
    assert results.region_position.shape == (len(data.region_table()), 2)
    assert results.regions_folder == "regions"
    assert results.label_names == ["good", "line", "square"]
    assert results.batch.image is None


def test_files_can_be_written_from_what_was_saved(gathered, tmp_path):
    results = replace(gathered[0], regions_folder=str(gathered[1].work_dir / "regions"))
    (tmp_path / "run").mkdir()
    results.save(tmp_path / "run" / "results.npz")
    files = ("predictions.csv", "regions.csv", "metrics.json", "gallery.png", "report.html")
    write_run_files(tmp_path / "run", results, SLOTS)
    first = {name: (tmp_path / "run" / name).read_bytes() for name in files}
    write_run_files(tmp_path / "run", RunResults.load(tmp_path / "run" / "results.npz"), SLOTS)
    again = {name: (tmp_path / "run" / name).read_bytes() for name in files}
    assert {name for name in files if first[name] != again[name]} <= {"report.html"}  # features in half precision
    assert len(first["report.html"]) == pytest.approx(len(again["report.html"]), rel=0.02)


def test_one_class_of_all_scores_as_one(gathered):
    scores = score(gathered[0], ["all"] * 3)["image"]
    assert scores["confusion"] == {name: {"all": 6} for name in ("good", "line", "square")}
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["nmi"] == 0


def test_nothing_is_scored_without_labels_and_the_map_can_show_probabilities(gathered, tiny_run, tmp_path):
    data = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, work_dir=tmp_path / "elsewhere")
    batch = replace(gathered[0].batch, region_feature=None, class_id=None, region_class_id=None)
    results = gather_results([batch], data, RegionMerging(tuple(SLOTS)), tmp_path / "run")
    assert score(results, SLOTS) is None
    assert results.label_names == []
    assert results.regions_folder == str(tmp_path / "elsewhere" / "regions")
    assert np.isfinite(results.region_position).all()


@pytest.fixture(scope="module")
def with_boxes(model, tiny_run, tmp_path_factory):
    """Results of a run whose labels are boxes of the defects, and where they came from."""
    output = tmp_path_factory.mktemp("with_boxes")
    lines = ["image,left,top,right,bottom,class"]
    for path in sorted(tiny_run.anomaly_maps.rglob("*.npy")):
        mask = np.load(path) > 0.4
        if mask.any():
            (top, left), (bottom, right) = np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0) + 1
            lines.append(f"{path.relative_to(tiny_run.anomaly_maps)},{left},{top},{right},{bottom},{path.parent.name}")
    lines.append("line/000,0,0,2,2,speck")
    (output / "boxes.csv").write_text("\n".join(lines).replace(".npy", ".png"))
    data = NcdDataModule(
        tiny_run.images,
        tiny_run.anomaly_maps,
        labels=output / "boxes.csv",
        work_dir=output,
        regions=RegionSettings("threshold", threshold=0.4),
    )
    return gather_results(discover_by_clustering(model, data), data, RegionMerging(tuple(SLOTS)), output), data, output


def test_regions_are_scored_by_the_defects_they_lie_on(with_boxes, tmp_path):
    results, data, _ = with_boxes
    assert data.class_names == ["good", "line", "speck", "square"]
    assert sorted(set(results.batch.class_id.tolist())) == [-1, 0, 1, 3]  # line/000 has two kinds
    assert results.found_defects == {"defects": 13, "touched": 12, "own": 12, "regions": 12, "false": 0}
    truth = [Path(results.batch.image_path[index]).parent.name for index in results.batch.region_image_index]
    assert [data.class_names[number] for number in results.batch.region_class_id] == truth
    scores = score(results, SLOTS)
    assert scores["region"]["count"] == 12
    assert scores["defects"]["recall"] == pytest.approx(12 / 13)
    assert scores["defects"]["false_alarms"] == 0
    assert scores["defects"]["images"]["count"] == 18
    assert 0 < scores["defects"]["images"]["micro_f1"] < 1
    results.save(tmp_path / "results.npz")
    assert score(RunResults.load(tmp_path / "results.npz"), SLOTS) == scores


def test_the_report_tells_what_was_found_of_the_defects(with_boxes):
    results, _, output = with_boxes
    _, metrics = write_run_files(output, results, SLOTS)
    assert metrics["defects"]["count"] == 13
    assert "92.3% of 13 defects have a region of their own" in (output / "report.html").read_text()


def test_other_boxes_are_other_labels(with_boxes, model):
    _, data, output = with_boxes
    before = MadeFrom.of(model, data, "cluster").inputs["labels"]
    (output / "other.csv").write_text((output / "boxes.csv").read_text().replace("0,0,2,2,speck", "0,0,2,3,speck"))
    other = NcdDataModule(data.images, data.anomaly_maps, labels=output / "other.csv")
    other.setup()
    assert MadeFrom.of(model, other, "cluster").inputs["labels"] != before
