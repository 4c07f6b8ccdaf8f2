# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import html
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.metrics.facts import tell_facts
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.writing import write_image
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.cluster import discover_by_clustering
from anomalib_ncd.runs.files import discovery_facts, gather_results, images_with_region, score, write_run_files
from anomalib_ncd.runs.folder import MadeFrom
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plate_images import make_image, simulate_anomaly_map

SLOTS = ["class_1", "class_2", "class_3"]

USELESS = {
    "of other images": lambda maps, rng: [maps[number - 1] for number in range(len(maps))],
    "noise": lambda maps, rng: [rng.random(one.shape) for one in maps],
    "constant": lambda maps, rng: [np.ones(one.shape) for one in maps],
    "inverted": lambda maps, rng: [1 - one for one in maps],
}


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Folder of 15 drawn plates, and their maps."""
    folder, rng = tmp_path_factory.mktemp("plates"), np.random.default_rng(0)
    maps = []
    for number, kinds in enumerate([("scratch",), ("stain",), ("dent",)] * 5):
        image, masks = make_image(kinds, rng)
        cv2.imwrite(str(folder / f"{number:02d}.png"), cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA))
        anomaly_map = simulate_anomaly_map(np.any(list(masks.values()), axis=0), rng).astype(np.float32)
        maps.append(cv2.resize(anomaly_map / anomaly_map.max(), (128, 128)))
    return folder, maps


def batch_and_facts(plates, maps, folder, method="elements"):
    """Predictions of a run on the plates with these maps, and its facts."""
    for number, anomaly_map in enumerate(maps):
        np.save(folder / f"{number:02d}.npy", anomaly_map.astype(np.float32))
    torch.manual_seed(0)
    settings = TrainingSettings(mask_layers=3)
    model = AnomalyNcd(backbone="test_vit", pretrained=False, training=settings, num_novel_classes=3)
    data = NcdDataModule(plates[0], folder, regions=RegionSettings(method=method))
    batch = NcdBatch.collate(discover_by_clustering(model, data))
    return batch, {**discovery_facts(batch, data), "images_with_region": images_with_region(batch)}


def off(facts):
    return {name for name, fact in tell_facts(facts).items() if fact["advice"]}


def test_a_good_detector_has_nothing_off(plates, tmp_path):
    batch, facts = batch_and_facts(plates, plates[1], tmp_path)
    assert not off(facts) - {"cluster_agreement"}
    assert {"own_image", "peak_height", "same_place", "cluster_agreement"} <= set(facts)
    assert images_with_region(batch) == facts["images_with_region"] > 0.9


@pytest.mark.parametrize("method", ["mebin", "elements"])
@pytest.mark.parametrize("kind", USELESS)
def test_a_useless_detector_is_named(plates, tmp_path, kind, method):
    maps = USELESS[kind](plates[1], np.random.default_rng(0))
    if (kind, method) == ("constant", "elements"):
        with pytest.raises(ValueError, match="No region was found in any of 15 images"):
            batch_and_facts(plates, maps, tmp_path, method)
        return
    _, facts = batch_and_facts(plates, maps, tmp_path, method)
    named = off(facts)
    assert "own_image" in named
    assert ("peak_height" in named) == (kind in {"constant", "inverted"})
    assert "images_with_region" in named or kind != "constant"


def test_normal_maps_tell_more(plates, tmp_path):
    data = NcdDataModule(plates[0], tmp_path, normal_maps=tmp_path / "normal", regions=RegionSettings("elements"))
    (tmp_path / "normal").mkdir()
    for number, anomaly_map in enumerate(plates[1]):
        np.save(tmp_path / f"{number:02d}.npy", anomaly_map)
        np.save(tmp_path / "normal" / f"{number}.npy", anomaly_map[::-1] / 2)
    batch, _ = batch_and_facts(plates, plates[1], tmp_path)
    facts = discovery_facts(batch, data)
    assert facts["detector_separation"] > 0.9
    assert facts["same_place_as_normal"] < 0.2


def test_few_good_images_are_told(plates, tmp_path):
    batch, facts = batch_and_facts(plates, plates[1], tmp_path)
    assert "good_images" not in facts
    for number in (3, 12):
        good = tmp_path / f"good{number}"
        good.mkdir()
        for copy in range(number):
            write_image(good / f"{copy}.png", np.zeros((32, 32, 3), np.uint8))
        data = NcdDataModule(plates[0], tmp_path, normal_images=good)
        data.setup()
        facts = tell_facts(discovery_facts(batch, data))
        assert ("good_images" in facts) == (number < 12)
        if number < 12:
            assert facts["good_images"]["value"] == number / 12
            assert facts["good_images"]["advice"]


def test_heads_of_a_trained_network_are_compared(plates, tmp_path):
    batch, facts = batch_and_facts(plates, plates[1], tmp_path)
    slots = batch.region_pred_class_id
    data = NcdDataModule(plates[0], tmp_path, regions=RegionSettings("elements"))
    trained = discovery_facts(replace(batch, region_head_class_id=torch.stack([slots, slots], dim=1)), data)
    assert trained["head_agreement"] == 1
    assert "cluster_agreement" in facts
    assert "cluster_agreement" not in trained
    one = discovery_facts(replace(batch, region_pred_class_id=torch.zeros_like(slots)), data)
    assert "cluster_agreement" not in one


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
    assert results.batch.region_feature.shape == (len(data.region_table()), 65)
    assert results.region_position.shape == (len(data.region_table()), 2)
    assert results.regions_folder == "regions"
    assert results.label_names == ["good", "line", "square"]
    assert results.batch.image is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (RegionSettings(), '--score_range "[2, 6]", whose middle, 4, is'),
        (RegionSettings("threshold", 0.5), "--regions.threshold below 0.5"),
        (RegionSettings("masks"), "other maps"),
    ],
)
def test_the_report_says_how_to_find_more_where_nothing_was_found(gathered, tmp_path, monkeypatch, settings, expected):
    results = replace(gathered[0], regions_folder=str(gathered[1].work_dir / "regions"))
    table = RegionTable.read(results.images, gathered[1].work_dir / "regions")
    assert table.score_range == gathered[1].fitted_score_range
    table.settings, table.score_range = settings, (2.0, 6.0)
    monkeypatch.setattr(RegionTable, "read", lambda *_: table)
    write_run_files(tmp_path, results, SLOTS)
    assert expected in html.unescape((tmp_path / "report.html").read_text())


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
    scores = score(gathered[0], ["all"] * 3, gathered[0].image_results(["all"] * 3))["image"]
    assert scores["confusion"] == {name: {"all": 6} for name in ("good", "line", "square")}
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["nmi"] == 0


def test_nothing_is_scored_without_labels_and_the_map_can_show_probabilities(gathered, tiny_run, tmp_path):
    data = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, work_dir=tmp_path / "elsewhere")
    batch = replace(gathered[0].batch, region_feature=None, class_id=None, region_class_id=None)
    results = gather_results([batch], data, RegionMerging(tuple(SLOTS)), tmp_path / "run")
    assert score(results, SLOTS, results.image_results(SLOTS)) is None
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
    scores = score(results, SLOTS, results.image_results(SLOTS))
    assert scores["region"]["count"] == 12
    assert scores["defects"]["recall"] == pytest.approx(12 / 13)
    assert scores["defects"]["false_alarms"] == 0
    assert scores["defects"]["images"]["count"] == 18
    assert 0 < scores["defects"]["images"]["micro_f1"] < 1
    results.save(tmp_path / "results.npz")
    again = RunResults.load(tmp_path / "results.npz")
    assert score(again, SLOTS, again.image_results(SLOTS)) == scores


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
