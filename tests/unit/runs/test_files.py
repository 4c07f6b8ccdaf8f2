# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.runs.files import gather_results, score, write_run_files
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
