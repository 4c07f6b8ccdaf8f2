# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from anomalib.engine import Engine

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.cli import classify
from anomalib_ncd.cli.main import main
from anomalib_ncd.deploy import Artefact
from anomalib_ncd.deploy.detectors import FunctionDetector

SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--num_novel_classes", "3"]


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """Folder of a run that was trained for an epoch."""
    output = tmp_path_factory.mktemp("run") / "run"
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps), "--accelerator", "cpu"]
    main(["discover", *flags, "--output", str(output), "--method", "train", "--max_epochs", "1", *SMALL])
    return output


@pytest.fixture(scope="module")
def clustered(tiny_run, tmp_path_factory):
    """Folder of a run that only clustered."""
    output = tmp_path_factory.mktemp("clustered") / "run"
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps), "--accelerator", "cpu"]
    main(["discover", *flags, "--output", str(output), "--method", "cluster", *SMALL])
    return output


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """The run packed for PyTorch, which needs no further package."""
    file = tmp_path_factory.mktemp("packed") / "run.zip"
    main(["pack", str(run), "--runtime", "torch", "--output", str(file)])
    return file


def classify_maps(model, run, output, *more):
    flags = ["--images", str(run.images), "--anomaly_maps", str(run.anomaly_maps), "--output", str(output)]
    main(["classify", str(model), *flags, *more])


def rows_of(file):
    with file.open(newline="") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


def assert_same_classes(found, wanted):
    assert {image: row["class"] for image, row in found.items()} == {
        image: row["class"] for image, row in wanted.items()
    }
    for image, row in found.items():
        assert float(row["confidence"]) == pytest.approx(float(wanted[image]["confidence"]), abs=1e-4)
        assert row["num_regions"] == wanted[image]["num_regions"]
        assert row["classes"] == wanted[image]["classes"]


@pytest.mark.parametrize("fixture", ["run", "packed"])
def test_a_run_and_what_was_packed_of_it_say_what_the_run_said(fixture, request, run, tiny_run, tmp_path):
    classify_maps(request.getfixturevalue(fixture), tiny_run, tmp_path)
    assert_same_classes(rows_of(tmp_path / "predictions.csv"), rows_of(run / "predictions.csv"))
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 18
    assert len(list((tmp_path / "pictures").rglob("*.jpg"))) == 18


def test_a_clustered_run_classifies_new_images(clustered, tiny_run, tmp_path):
    classify_maps(clustered, tiny_run, tmp_path / "out", "--pictures", "false")
    assert_same_classes(rows_of(tmp_path / "out" / "predictions.csv"), rows_of(clustered / "predictions.csv"))


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
def test_a_run_that_compared_with_normal_images_needs_them_no_more(backbone, own_tiny_run, tmp_path):
    normal = own_tiny_run.images.rename(tmp_path / "all")  # gone when new images are classified
    flags = ["--images", str(normal), "--anomaly_maps", str(own_tiny_run.anomaly_maps), "--accelerator", "cpu"]
    flags += ["--normal_images", str(normal / "good"), *SMALL, "--backbone", backbone]
    main(["discover", *flags, "--output", str(tmp_path / "run")])
    normal.rename(own_tiny_run.images)
    main(["pack", str(tmp_path / "run"), "--runtime", "torch", "--output", str(tmp_path / "run.zip")])
    for model in ("run", "run.zip"):
        classify_maps(tmp_path / model, own_tiny_run, tmp_path / f"of_{model}", "--pictures", "false")
        found = rows_of(tmp_path / f"of_{model}" / "predictions.csv")
        assert {row["class"] for image, row in found.items() if "good" in image} == {"normal"}
        assert "normal" not in {row["class"] for image, row in found.items() if "good" not in image}


def test_a_new_kind_is_unknown_and_the_rate_can_be_changed(own_tiny_run, tmp_path):
    # The run sees squares and good plates; lines come later.
    lines = tmp_path / "lines"
    (own_tiny_run.images / "line").rename(lines)
    flags = ["--images", str(own_tiny_run.images), "--anomaly_maps", str(own_tiny_run.anomaly_maps)]
    output = tmp_path / "run"
    main(["discover", *flags, "--output", str(output), "--method", "cluster", *SMALL, "--num_novel_classes", "2"])
    maps = ["--anomaly_maps", str(own_tiny_run.anomaly_maps / "line"), "--pictures", "false"]
    main(["classify", str(output), "--images", str(lines), *maps, "--output", str(tmp_path / "new")])
    assert {row["unknown"] for row in rows_of(tmp_path / "new" / "predictions.csv").values()} == {"True"}
    packed = tmp_path / "packed"
    main(["pack", str(output), "--runtime", "torch", "--false_reject_rate", "0.5", "--output", str(packed)])
    assert Artefact.load(packed).manifest.rejection.false_reject_rate == 0.5
    rate = ["--false_reject_rate", "0.5", "--output", str(tmp_path / "again")]
    squares = ["--images", str(own_tiny_run.images / "square")]
    squares += ["--anomaly_maps", str(own_tiny_run.anomaly_maps / "square"), "--pictures", "false"]
    main(["classify", str(output), *squares, *rate])
    assert len(rows_of(tmp_path / "again" / "predictions.csv")) == 6
    with pytest.raises(SystemExit, match="a packed model keeps the threshold"):
        main(["classify", str(packed), *squares, *rate])


@pytest.mark.parametrize("fixture", ["run", "clustered"])
def test_one_new_image_gets_the_class_it_has_among_others(fixture, request, tiny_run, tmp_path):
    run = request.getfixturevalue(fixture)
    together = rows_of(run / "predictions.csv")
    model = AnomalyNcd.load_from_checkpoint(run / "model.ckpt")
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    for kind in ("good", "line", "square"):
        image, maps = tiny_run.images / kind / "003.png", tiny_run.anomaly_maps / kind
        flags = ["--images", str(image), "--anomaly_maps", str(maps), "--pictures", "false"]
        main(["classify", str(run), *flags, "--output", str(tmp_path / kind)])
        [(name, row)] = rows_of(tmp_path / kind / "predictions.csv").items()
        engine = Engine(accelerator="cpu", devices=1, default_root_dir=tmp_path, **options)
        [batch] = engine.predict(model, datamodule=NcdDataModule(image, maps))
        assert row["class"] == model.class_names[int(batch.pred_class_id)] == together[name]["class"]
        assert row["unknown"] == str(bool(batch.unknown)) == together[name]["unknown"]
        assert float(row["confidence"]) == pytest.approx(float(batch.pred_class_score), abs=1e-4)
        assert float(row["confidence"]) == pytest.approx(float(together[name]["confidence"]), abs=1e-4)


def test_the_same_command_goes_on(packed, tiny_run, tmp_path, caplog):
    caplog.set_level("INFO")
    classify_maps(packed, tiny_run, tmp_path, "--pictures", "false")
    classify_maps(packed, tiny_run, tmp_path, "--pictures", "false")
    assert "18 images classified, 0 could not be used, 0 were done before" in caplog.text
    assert "0 images classified, 0 could not be used, 18 were done before" in caplog.text


def test_watching_stops_when_it_is_told_to(packed, tiny_run, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    patience = ["--patience.settle_seconds", "0", "--poll_seconds", "0.01"]
    classify_maps(packed, tiny_run, tmp_path / "a", "--watch", "true", "--stop_after_idle", "0.1", *patience)
    assert len(rows_of(tmp_path / "a" / "predictions.csv")) == 18

    def interrupt(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(classify, "classify_folder", interrupt)
    classify_maps(packed, tiny_run, tmp_path / "b", "--watch", "true")
    assert "the same command goes on" in caplog.text


def test_a_digest_is_checked(packed, tiny_run, tmp_path):
    digest = Artefact.load(packed).sha256
    classify_maps(packed, tiny_run, tmp_path, "--sha256", digest, "--pictures", "false", "--masks", "true")
    assert "run_lengths" in (tmp_path / "results.jsonl").read_text()
    with pytest.raises(SystemExit, match="it is another one or was tampered with"):
        classify_maps(packed, tiny_run, tmp_path, "--sha256", "0" * 64)


def test_flags_that_do_not_go_together(run, packed, tiny_run, tmp_path):
    with pytest.raises(SystemExit, match="was made from saved maps, so new images need maps as well"):
        main(["classify", str(run), "--images", str(tiny_run.images), "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="The artefact has no detector"):
        main(["classify", str(packed), "--images", str(tiny_run.images), "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"Give one of `--anomaly_maps`, `--detector\.class_path` and"):
        classify_maps(packed, tiny_run, tmp_path, "--detector.file", "detector.onnx")
    with pytest.raises(SystemExit, match="`--sha256` is for packed models"):
        classify_maps(run, tiny_run, tmp_path, "--sha256", "0")
    with pytest.raises(SystemExit, match="exists already"):
        main(["pack", str(run), "--runtime", "torch", "--output", str(packed)])


def test_a_detector_in_other_units_is_not_packed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(classify, "load_artefact_detector", lambda _: FunctionDetector(lambda p: p[..., 0] * 1.0))
    with pytest.raises(SystemExit, match="are in other units"):
        main(["pack", str(run), "--runtime", "torch", "--output", str(tmp_path / "packed")])
    assert not (tmp_path / "packed").exists()


def write_detector_of(run, tmp_path, **values):
    copy = shutil.copytree(run, tmp_path / "copied")
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(settings | {"detector": values}))
    return copy


def test_the_detector_of_a_run_goes_along_or_is_left_out(run, tmp_path):
    copy = write_detector_of(run, tmp_path, class_path="Padim", init_args={}, ckpt_path=str(tmp_path / "gone.ckpt"))
    flags = ["--runtime", "torch", "--output", str(tmp_path / "packed")]
    with pytest.raises(SystemExit, match=r"There is no detector checkpoint .*gone\.ckpt"):
        main(["pack", str(copy), *flags])
    main(["pack", str(copy), *flags, "--with_detector", "false"])
    assert Artefact.load(tmp_path / "packed").manifest.detector is None


@pytest.mark.parametrize("class_path", ["evil.Detector", "anomalib.modelsx.Detector", "anomalib.models/../x", ["a"]])
def test_a_run_from_elsewhere_has_no_module_imported(run, tiny_run, tmp_path, monkeypatch, class_path):
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path('imported').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    copy = write_detector_of(run, tmp_path, class_path=class_path, ckpt_path="x.ckpt")
    new = ["--images", str(tiny_run.images), "--output", str(tmp_path / "out")]
    for command in (["classify", str(copy), *new], ["extend", str(copy), *new], ["pack", str(copy), *new]):
        with pytest.raises(SystemExit, match="which is no model of anomalib; if you trust it"):
            main(command)
    assert not (tmp_path / "imported").exists()


def test_a_run_without_its_images_is_packed_unchecked(run, tmp_path, caplog):
    flags = ["--images", str(tmp_path / "gone"), "--runtime", "torch"]
    main(["pack", str(run), "--output", str(tmp_path / "packed"), *flags])
    assert "the detector's maps can't be checked" in caplog.text
    manifest = json.loads((tmp_path / "packed" / "manifest.json").read_text())
    assert manifest["class_names"] == ["normal", "class_1", "class_2"]
    assert sorted(path.name for path in Path(tmp_path / "packed").iterdir()) == ["encoder.safetensors", "manifest.json"]
