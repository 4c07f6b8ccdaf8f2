# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.cli.main import main
from anomalib_ncd.data import region_table
from anomalib_ncd.models import lightning_model
from anomalib_ncd.runs import discover as run_module
from anomalib_ncd.runs.discover import RunCheckpoint, discover
from anomalib_ncd.settings import RunOptions, TrainingSettings
from anomalib_ncd.visualization.gallery import CAPTION_PX, GAP_PX, TILE_PX

SCORES = {"nmi", "ari", "accuracy", "macro_f1"}
SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--num_novel_classes", "3"]


class Clock:
    """A clock that stands still but for what is added to it."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds_to_save", "saved"), [(0.0, [0, 1, 2, 3, 4, 5, 6]), (1.0, [0, 2, 4, 6]), (9.0, [0, 6])]
)
def test_it_saves_as_often_as_the_share_allows_and_at_the_end(monkeypatch, tmp_path, seconds_to_save, saved):
    clock, epochs = Clock(), []
    monkeypatch.setattr(run_module, "time", clock)

    class Saver(RunCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            epochs.append(trainer.current_epoch)
            clock.now += seconds_to_save

    class Model(BoringModel):
        learning_type = None
        val_dataloader = validation_step = None

        def on_train_epoch_start(self):
            clock.now += 10

    arguments = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    saver = Saver(tmp_path, "model", share_of_time=0.05)
    Trainer(max_epochs=7, limit_train_batches=1, callbacks=[saver], **arguments).fit(Model())
    assert epochs == saved


def run_train(run, output, *more, max_epochs=1):
    args = ["discover", "--images", str(run.images), "--anomaly_maps", str(run.anomaly_maps), "--base", str(run.base)]
    args += ["--output", str(output), "--labels", "folders", "--accelerator", "cpu", "--max_epochs", str(max_epochs)]
    main([*args, *SMALL, *more])


def run_cluster(run, output, *more):
    run_train(run, output, "--method", "cluster", *more)


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def epochs_in(output):
    return torch.load(output / "model.ckpt", weights_only=True)["epoch"] + 1


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    """Folder of a run that was trained for an epoch; tests only read it."""
    output = tmp_path_factory.mktemp("trained") / "run"
    run_train(tiny_run, output)
    return output


@pytest.fixture(scope="module")
def clustered(tiny_run, tmp_path_factory):
    """Folder of a run that only clustered; tests only read it."""
    output = tmp_path_factory.mktemp("clustered") / "run"
    run_cluster(tiny_run, output)
    return output


@pytest.fixture
def own_trained(trained, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(trained, tmp_path / "own_trained", symlinks=True)


@pytest.fixture
def own_clustered(clustered, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(clustered, tmp_path / "own_clustered")


@pytest.fixture(params=["trained", "clustered"])
def output(request):
    return request.getfixturevalue(request.param)


def test_every_image_has_a_prediction(tiny_run, output):
    rows = rows_of(output / "predictions.csv")
    assert list(rows[0]) == ["image", "class", "confidence", "normal", "num_regions", "unknown", "classes"]
    # What the classes were discovered in is known.
    assert {row["unknown"] for row in rows} == {"False"}
    assert sorted(row["image"] for row in rows) == sorted(str(path) for path in tiny_run.images.rglob("*.png"))
    assert all(1 / 3 <= float(row["confidence"]) <= 1 for row in rows)


def test_every_region_has_a_prediction_and_a_crop(output):
    rows = rows_of(output / "regions.csv")
    columns = ["image", "left", "top", "right", "bottom", "area", "score", "class", "confidence", "unknown"]
    assert list(rows[0]) == columns
    assert len(rows) == sum(int(row["num_regions"]) for row in rows_of(output / "predictions.csv"))
    crops = list((output / "regions" / "images").rglob("*.png"))
    assert len(crops) == len(list((output / "regions" / "masks").rglob("*.png"))) == len(rows)
    for row in rows:
        assert float(row["left"]) < float(row["right"])
        assert 0 <= float(row["score"]) <= 1


def test_classes_have_names(trained, clustered):
    names = {row["class"] for row in rows_of(trained / "predictions.csv")}
    assert names <= {"normal", "class_1", "class_2"}
    assert {row["class"] for row in rows_of(clustered / "regions.csv")} == {"class_1", "class_2"}
    good = [row["class"] for row in rows_of(clustered / "predictions.csv") if "good" in row["image"]]
    assert good == ["normal"] * 6


def test_metrics_of_images_and_regions(output):
    metrics = json.loads((output / "metrics.json").read_text())
    assert set(metrics) == {"image", "region", "facts"}
    agreement = {"head_agreement", "cluster_agreement"} & set(metrics["facts"])
    assert set(metrics["facts"]) == {"images_with_region", "own_image", "peak_height", "same_place"} | agreement
    assert len(agreement) == 1
    assert metrics["facts"]["images_with_region"]["value"] == len(
        {row["image"] for row in rows_of(output / "regions.csv") if int(row["area"])}
    ) / len(rows_of(output / "predictions.csv"))
    for report in (metrics["image"], metrics["region"]):
        assert set(report) >= SCORES | {"count", "defects", "matching", "confusion"}
        assert all(-0.5 <= report[name] <= 1 for name in SCORES)
        assert set(report["defects"]) == SCORES | {"count"}
    assert set(metrics["image"]["confusion"]) == {"good", "line", "square"}
    assert set(metrics["region"]["confusion"]) == {"line", "square"}  # nothing was found in good images
    assert metrics["image"]["count"] == 18
    assert metrics["image"]["defects"]["count"] == 12
    assert metrics["region"]["count"] == len(rows_of(output / "regions.csv"))


def test_the_gallery_shows_each_class_that_has_regions(output):
    picture = cv2.imread(str(output / "gallery.png"))
    assert picture is not None
    found = {row["class"] for row in rows_of(output / "regions.csv")}
    assert found
    assert picture.shape[0] == len(found) * (CAPTION_PX + TILE_PX + GAP_PX)


def test_the_report_is_one_file_about_this_run(tiny_run, output):
    text = (output / "report.html").read_text()
    assert "in 18 images fall into" in text
    assert "Against the labels" in text
    assert "square/000" in text
    assert str(tiny_run.images) not in text


def test_every_run_leaves_one_checkpoint(trained, output):
    assert [path.name for path in output.rglob("*.ckpt")] == ["model.ckpt"]
    assert epochs_in(trained) == 1


def predictions_of(run, datamodule, folder):
    """Class of each image by what a run left."""
    model = AnomalyNcd.load_from_checkpoint(run / "model.ckpt")
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder)
    return {
        path: (model.class_names[class_id], score)
        for batch in engine.predict(model, datamodule=datamodule)
        for path, class_id, score in zip(
            batch.image_path,
            batch.pred_class_id.tolist(),
            batch.pred_class_score.tolist(),
            strict=True,
        )
    }


def test_the_checkpoint_predicts_what_the_run_predicted(tiny_run, output, tmp_path):
    found = predictions_of(output, NcdDataModule(tiny_run.images, tiny_run.anomaly_maps), tmp_path)
    expected = {row["image"]: (row["class"], float(row["confidence"])) for row in rows_of(output / "predictions.csv")}
    assert found == {path: (name, pytest.approx(score, abs=1e-4)) for path, (name, score) in expected.items()}


@pytest.mark.parametrize("name", ["good/001", "line/002", "square/003"])
def test_a_single_new_image_has_the_class_it_has_among_others(own_tiny_run, clustered, tmp_path, name):
    # Brighter than any image of the run, so that the range of the maps would be another if it were fitted anew.
    file = own_tiny_run.images / f"{name}.png"
    cv2.imwrite(str(file), cv2.convertScaleAbs(cv2.imread(str(file)), beta=5))
    map_file = own_tiny_run.anomaly_maps / f"{name}.npy"
    np.save(map_file, np.load(map_file) + np.float32(0.05))
    among_others = predictions_of(
        clustered,
        NcdDataModule(own_tiny_run.images, own_tiny_run.anomaly_maps),
        tmp_path,
    )
    alone = NcdDataModule(file, map_file.parent)
    [(class_name, score)] = predictions_of(clustered, alone, tmp_path).values()
    assert (class_name, score) == (among_others[str(file)][0], pytest.approx(among_others[str(file)][1], abs=1e-4))
    saved = torch.load(clustered / "model.ckpt", weights_only=True)
    assert alone.fitted_score_range == tuple(saved["state_dict"]["score_range"].tolist())


def test_training_does_not_go_on_in_the_folder_of_clusters(tiny_run, clustered):
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps)
    with pytest.raises(ValueError, match="holds a run of the method 'cluster'; choose another folder for training"):
        discover(model, datamodule, clustered, "train", RunOptions(max_epochs=1, accelerator="cpu"))


def test_a_finished_run_computes_nothing_again(tiny_run, own_trained, monkeypatch):
    before = {name: (own_trained / name).read_text() for name in ("predictions.csv", "regions.csv", "metrics.json")}
    stamp = (own_trained / "model.ckpt").stat().st_mtime_ns
    monkeypatch.setattr(region_table, "cut_regions", None)
    monkeypatch.setattr(lightning_model.AnomalyNcd, "training_step", None)
    run_train(tiny_run, own_trained)
    assert (own_trained / "model.ckpt").stat().st_mtime_ns == stamp
    assert {name: (own_trained / name).read_text() for name in before} == before


def test_training_goes_on_when_epochs_are_added(tiny_run, own_trained, monkeypatch):
    monkeypatch.setattr(region_table, "cut_regions", None)
    epochs = []
    original = lightning_model.AnomalyNcd.on_train_epoch_start

    def note(model):
        epochs.append(model.current_epoch)
        original(model)

    monkeypatch.setattr(lightning_model.AnomalyNcd, "on_train_epoch_start", note)
    run_train(tiny_run, own_trained, max_epochs=3)
    assert epochs == [1, 2]
    assert epochs_in(own_trained) == 3
    assert [path.name for path in own_trained.glob("*.ckpt")] == ["model.ckpt"]


def test_an_interrupted_training_goes_on(tiny_run, tmp_path, monkeypatch):
    original = lightning_model.AnomalyNcd.on_train_epoch_start

    def kill(model):
        if model.current_epoch == 1:
            msg = "killed"
            raise RuntimeError(msg)
        original(model)

    with monkeypatch.context() as patch:
        patch.setattr(lightning_model.AnomalyNcd, "on_train_epoch_start", kill)
        with pytest.raises(SystemExit, match="killed"):
            run_train(tiny_run, tmp_path, max_epochs=2)
    assert epochs_in(tmp_path) == 1
    run_train(tiny_run, tmp_path, max_epochs=2)
    assert epochs_in(tmp_path) == 2
    assert len(rows_of(tmp_path / "predictions.csv")) == 18


def test_a_folder_of_other_settings_is_refused(tiny_run, clustered):
    before = (clustered / "config.yaml").read_text()
    with pytest.raises(SystemExit, match=r"other settings of \['num_heads', 'sampler_seed'\]; choose another"):
        run_cluster(tiny_run, clustered, "--training.num_heads", "2", "--seed", "4")
    with pytest.raises(SystemExit, match="holds a run of the method 'cluster'"):
        run_train(tiny_run, clustered)
    assert (clustered / "config.yaml").read_text() == before


@pytest.mark.parametrize("method", ["train", "cluster"])
def test_other_settings_are_refused_in_python_too(tiny_run, tmp_path, method):
    def run(**model_args):
        torch.manual_seed(0)
        arguments = {
            "backbone": "test_vit",
            "pretrained": False,
            "training": TrainingSettings(mask_layers=3),
            "num_novel_classes": 3,
            **model_args,
        }
        options = RunOptions(max_epochs=1, accelerator="cpu")
        data = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps)
        return discover(AnomalyNcd(**arguments), data, tmp_path, method, options)

    metrics = run()
    with pytest.raises(ValueError, match="other settings of"):
        run(false_reject_rate=0.5)
    assert run() == metrics


def test_a_finished_run_says_that_nothing_is_to_do(tiny_run, clustered, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    monkeypatch.setattr("anomalib_ncd.runs.discover.discover_by_clustering", None)
    monkeypatch.chdir(tiny_run.images)
    before = {file: file.stat().st_mtime_ns for file in clustered.rglob("*.*") if file.name != "config.yaml"}
    run_cluster(SimpleNamespace(**vars(tiny_run) | {"images": Path("../images")}), clustered)  # another spelling
    assert "finished already; nothing to do" in caplog.text
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize("change", ["more", "other image", "other map", "other weights"])
def test_what_was_made_from_something_else_is_not_taken(
    own_tiny_run, own_trained, own_clustered, tmp_path, caplog, change
):
    more = []
    if change == "more":
        shutil.copy(own_tiny_run.images / "line" / "000.png", own_tiny_run.images / "line" / "900.png")
        shutil.copy(own_tiny_run.anomaly_maps / "line" / "000.npy", own_tiny_run.anomaly_maps / "line" / "900.npy")
    elif change == "other weights":
        torch.save(
            AnomalyNcd(
                backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3)
            ).model.describer.encoder.backbone.state_dict(),
            tmp_path / "w.pth",
        )
        more = ["--backbone_weights", str(tmp_path / "w.pth")]
    else:
        file = own_tiny_run.images / "line" / "000.png" if change == "other image" else None
        file = file or own_tiny_run.anomaly_maps / "line" / "000.npy"
        os.utime(file, (1, 1))  # an older file in the place of the one that was there
    with pytest.raises(SystemExit, match=r"was trained with other .*; choose another"):
        run_train(own_tiny_run, own_trained, *more)
    run_cluster(own_tiny_run, own_clustered, *more)
    assert "is made anew" in caplog.text
    assert len(rows_of(own_clustered / "predictions.csv")) == (19 if change == "more" else 18)


def test_fewer_epochs_than_were_trained_are_refused(tiny_run, trained):
    with pytest.raises(SystemExit, match="was trained for 1 epochs, not 0"):
        run_train(tiny_run, trained, max_epochs=0)


def test_names_go_with_their_regions(own_tiny_run, own_clustered, tmp_path, caplog):
    """A run is made anew from other images, and its clusters come in another order."""
    output, flags = own_clustered, ("--labels", "folders")
    kinds = {row["class"]: Path(row["image"]).parent.name for row in rows_of(output / "predictions.csv")}
    names = {slot: kind for slot, kind in kinds.items() if slot != "normal"}
    (tmp_path / "names.json").write_text(json.dumps({"names": names}))
    main(["name", str(output), "--names", str(tmp_path / "names.json")])
    for number in range(3):
        (own_tiny_run.images / "square" / f"00{number}.png").unlink()
    run_cluster(own_tiny_run, output, *flags)
    called = {(Path(row["image"]).parent.name, row["class"]) for row in rows_of(output / "predictions.csv")}
    assert called == {("good", "normal"), ("line", "line"), ("square", "square")}
    (own_tiny_run.images / "line").rename(tmp_path / "line")  # nothing is left that was called so
    run_cluster(own_tiny_run, output, *flags)
    assert "line" not in {row["class"] for row in rows_of(output / "predictions.csv")}
    assert "the names of 'line' were dropped" in caplog.text
    assert json.loads((output / "class_names.old.json").read_text())["names"]


def test_without_labels_there_are_facts_alone(tiny_run, tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, work_dir=tmp_path)
    datamodule.setup()
    metrics = discover(model, datamodule, tmp_path, method="cluster")
    assert list(metrics) == ["facts"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert not (tmp_path / "config.yaml").exists()
    assert len(rows_of(tmp_path / "predictions.csv")) == 18
    assert "18 images sorted into classes" in caplog.text
    assert f"open {tmp_path / 'report.html'} in a browser first" in caplog.text
    assert "class_1" in (tmp_path / "report.html").read_text()


def test_it_works_from_python(tiny_run, tmp_path):
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, labels="folders")
    options = replace(RunOptions(), max_epochs=1, accelerator="cpu")
    metrics = discover(model, datamodule, tmp_path / "new" / "run", options=options)
    assert metrics == json.loads((tmp_path / "new" / "run" / "metrics.json").read_text())
    assert (tmp_path / "new" / "run" / "regions" / "regions.jsonl").is_file()


def test_unknown_labels_are_not_scored(tiny_run, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("image,class\nline/000,line\nsquare/000,square\n")
    run_cluster(tiny_run, tmp_path / "run", "--labels", str(labels))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["image"]["count"] == 2
    assert len(rows_of(tmp_path / "run" / "predictions.csv")) == 18


def test_too_few_regions_are_named(tiny_run, tmp_path):
    with pytest.raises(SystemExit, match="`num_novel_classes` is 300, but the images have only"):
        run_train(tiny_run, tmp_path, "--num_novel_classes", "300")
    # A folder in which nothing was found yet takes other settings.
    run_cluster(tiny_run, tmp_path)
    assert (tmp_path / "predictions.csv").is_file()


def test_the_number_of_classes_is_estimated_by_default_and_kept(tiny_run, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    arguments = {"backbone": "test_vit", "pretrained": False, "training": TrainingSettings(mask_layers=3)}

    def run(max_epochs, method="train"):
        torch.manual_seed(0)
        model = AnomalyNcd(**arguments)
        options = RunOptions(max_epochs=max_epochs, accelerator="cpu")
        discover(model, NcdDataModule(tiny_run.images, tiny_run.anomaly_maps), tmp_path / method, method, options)
        return model

    clustered = run(1, "cluster")
    trained = run(1)
    found = json.loads((tmp_path / "train" / "number_of_classes.json").read_text())
    assert found == trained.num_classes_estimate.plain()
    # Images without a region are *normal*, which is counted where regions are clustered.
    assert clustered.num_classes_estimate == trained.num_classes_estimate.with_normal()
    assert found["low"] <= found["count"] <= found["high"]
    assert trained.slots.num_novel == found["count"]
    assert clustered.slots.num_novel == found["count"] + 1
    for method in ("train", "cluster"):
        assert 'id="number"' in (tmp_path / method / "report.html").read_text()
        count = json.loads((tmp_path / method / "number_of_classes.json").read_text())["count"]
        assert f"{count} classes, normal included, were estimated" in caplog.text
    # Whatever an estimate would say now, training goes on with the number that it began with.
    monkeypatch.setattr(lightning_model, "estimate_num_classes", None)
    assert run(2).slots.num_novel == found["count"]
    assert epochs_in(tmp_path / "train") == 2
    assert json.loads((tmp_path / "train" / "number_of_classes.json").read_text()) == found


def test_a_given_number_of_classes_leaves_no_estimate(output):
    assert not (output / "number_of_classes.json").exists()
    assert 'id="number"' not in (output / "report.html").read_text()
