# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from anomalib.engine import Engine

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.cli import classify
from anomalib_ncd.cli.main import main
from anomalib_ncd.deploy import Artefact
from anomalib_ncd.deploy.detectors import FunctionDetector
from anomalib_ncd.results.run_results import RunResults

pytestmark = pytest.mark.usefixtures("little_of_normal")

SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--num_novel_classes", "3"]

SMALL_extend = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--seed", "5"]
COLOURS = {"good": 0, "line": (20, 20, 20), "square": (230, 230, 230), "disc": (0, 0, 250)}
KINDS = ("good", "line", "square")


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
def test_a_run_that_compared_with_normal_images_needs_them_no_more(backbone, own_tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("anomalib_ncd.models.describer.MIN_NORMAL_IMAGES", 6)
    normal = own_tiny_run.images.rename(tmp_path / "all")  # gone when new images are classified
    flags = ["--images", str(normal), "--anomaly_maps", str(own_tiny_run.anomaly_maps), "--accelerator", "cpu"]
    flags += ["--normal_images", str(normal / "good"), *SMALL, "--backbone", backbone, "--image_size", "64"]
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
    assert "the detector's maps can't be checked; give `--images` and `--anomaly_maps`" in caplog.text
    manifest = json.loads((tmp_path / "packed" / "manifest.json").read_text())
    assert manifest["class_names"] == ["normal", "class_1", "class_2"]
    assert sorted(path.name for path in Path(tmp_path / "packed").iterdir()) == ["encoder.safetensors", "manifest.json"]


def test_a_refined_run_is_checked_with_the_maps_of_the_run_before(run, tiny_run, tmp_path, caplog):
    first, refined = tmp_path / "first", shutil.copytree(run, tmp_path / "refined")
    settings = yaml.safe_load((refined / "config.yaml").read_text())
    (refined / "config.yaml").write_text(yaml.safe_dump(settings | {"anomaly_maps": None, "output": str(first)}))
    pack = ["pack", str(refined), "--runtime", "torch", "--output"]
    main([*pack, str(tmp_path / "unchecked")])
    assert "the detector's maps can't be checked" in caplog.text
    shutil.copytree(tiny_run.anomaly_maps, first / "anomaly_maps")
    caplog.clear()
    main([*pack, str(tmp_path / "checked")])
    assert "can't be checked" not in caplog.text


def draw(folder, kinds, count, seed):
    """Plates with nothing, a dark line, a bright square or a red disc on them, and their maps."""
    rng = np.random.default_rng(seed)
    for kind in kinds:
        for number in range(count):
            image = np.clip(rng.normal(120, 4, (64, 64, 3)), 0, 255).astype(np.uint8)
            mask = np.zeros((64, 64), np.uint8)
            top, left = rng.integers(8, 36, 2).tolist()
            if kind == "line":
                mask[top : top + 7, 4:60] = 1
            elif kind == "square":
                mask[top : top + 18, left : left + 18] = 1
            elif kind == "disc":
                cv2.circle(mask, (left + 10, top + 10), 10, 1, -1)
            image[mask > 0] = COLOURS[kind]
            for part in ("images", "maps"):
                (folder / part / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "images" / kind / f"{number:03d}.png"), image)
            blurred = cv2.GaussianBlur(mask.astype(np.float32), (5, 5), 0) * rng.uniform(0.8, 1.0)
            noise = rng.uniform(0.05, 0.15, mask.shape).astype(np.float32)
            np.save(folder / "maps" / kind / f"{number:03d}.npy", blurred + noise)
    return SimpleNamespace(images=folder / "images", maps=folder / "maps")


def table_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def kind_of(row):
    return row["image"].split("/")[-2]


def extend(first_run, data, output, *more):
    flags = ["--images", str(data.images), "--anomaly_maps", str(data.maps), "--output", str(output)]
    main(["extend", str(first_run), *flags, *more])
    return output


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("known"), KINDS, 12, seed=0)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """New images of two kinds and of a third one, under names that the run has, too."""
    return draw(tmp_path_factory.mktemp("new"), (*KINDS[1:], "disc"), 5, seed=1)


def discover(method, known, output):
    """A run of three classes, of which the user named the second."""
    flags = ["--images", str(known.images), "--anomaly_maps", str(known.maps), "--labels", "folders"]
    flags += ["--num_novel_classes", "3", "--false_reject_rate", "0.05", "--accelerator", "cpu"]
    main(["discover", *flags, "--output", str(output), "--method", method, "--max_epochs", "1", *SMALL_extend])
    named = {"names": {RunResults.load(output / "results.npz").slot_names[1]: "scratch"}}
    (output / "class_names.json").write_text(json.dumps(named))
    return output


@pytest.fixture(scope="module")
def clustered_run(known, tmp_path_factory):
    return discover("cluster", known, tmp_path_factory.mktemp("clustered") / "run")


@pytest.fixture(scope="module")
def trained(known, tmp_path_factory):
    return discover("train", known, tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module", params=["clustered_run", "trained"])
def first_run(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def extended(first_run, new, tmp_path_factory):
    return extend(first_run, new, tmp_path_factory.mktemp("extended") / "run", "--labels", "folders")


def test_a_new_kind_becomes_a_class_behind_the_old_ones(first_run, extended):
    before, after = (RunResults.load(folder / "results.npz") for folder in (first_run, extended))
    assert after.slot_names[: len(before.slot_names)] == before.slot_names
    assert len(after.slot_names) == len(before.slot_names) + 1
    old, model = (AnomalyNcd.load_from_checkpoint(folder / "model.ckpt") for folder in (first_run, extended))
    assert model.class_names == [before.slot_names[0], "scratch", before.slot_names[2], after.slot_names[3]]
    assert model.slots.has_normal == old.slots.has_normal
    torch.testing.assert_close(model.model.heads.weight[:, :3], old.model.heads.weight)
    assert torch.equal(model.score_range, old.score_range)
    rows = table_of(extended / "predictions.csv")
    discs = [row for row in rows if kind_of(row) == "disc"]
    assert [row["class"] for row in discs] == [after.slot_names[3]] * 5
    assert {row["unknown"] for row in discs} == {"False"}


def test_the_images_of_the_run_keep_their_classes(first_run, extended):
    before = {row["image"]: row["class"] for row in table_of(first_run / "predictions.csv")}
    after = {row["image"]: row["class"] for row in table_of(extended / "predictions.csv")}
    assert len(before) == 36
    assert len(after) == 36 + 15
    slot_names = RunResults.load(first_run / "results.npz").slot_names
    renamed = {slot_names[1]: "scratch"}
    changed = [image for image, name in before.items() if after[image] != renamed.get(name, name)]
    assert not changed


def test_the_folder_is_a_whole_run(extended):
    names = {path.name for path in extended.iterdir()}
    assert names >= {"report.html", "gallery.png", "predictions.csv", "regions.csv", "metrics.json", "config.yaml"}
    results = RunResults.load(extended / "results.npz")
    assert len(set(results.image_keys)) == 51
    crops = list((extended / "regions" / "images").rglob("*.png"))
    assert len(crops) == len(results.batch.region_area)
    assert json.loads((extended / "metrics.json").read_text())["image"]["count"] == 51


def test_it_classifies_and_is_extended_again(extended, new, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = ["--images", str(new.images), "--anomaly_maps", str(new.maps), "--pictures", "false"]
    main(["classify", str(extended), *flags, "--output", str(tmp_path / "results")])
    found = {row["image"]: row["class"] for row in table_of(tmp_path / "results" / "predictions.csv")}
    expected = {row["image"]: row["class"] for row in table_of(extended / "predictions.csv")}
    assert found == {image: expected[image] for image in found}
    assert len(found) == 15
    # The same images again are taken once, and what is unknown about them is what was unknown still.
    again = extend(extended, new, tmp_path / "again")
    unknown = [[row["unknown"] for row in table_of(first_run / "regions.csv")] for first_run in (extended, again)]
    assert unknown[0] == unknown[1]
    assert ("Every region is like one of the run" in caplog.text) == ("True" not in unknown[0])
    assert RunResults.load(again / "results.npz").slot_names == RunResults.load(extended / "results.npz").slot_names
    assert len(table_of(again / "predictions.csv")) == 51
    assert {row["image"]: row["class"] for row in table_of(again / "predictions.csv")} == expected


def test_a_given_number_of_classes(clustered_run, new, tmp_path):
    output = extend(clustered_run, new, tmp_path / "run", "--num_new_classes", "2")
    assert AnomalyNcd.load_from_checkpoint(output / "model.ckpt").slots.num_novel == 5


def test_small_groups_stay_unknown(clustered_run, new, tmp_path, caplog):
    caplog.set_level("INFO")
    output = extend(clustered_run, new, tmp_path / "run", "--min_regions", "50")
    assert "New classes: none." in caplog.text
    discs = [row for row in table_of(output / "predictions.csv") if kind_of(row) == "disc"]
    assert [row["unknown"] for row in discs] == ["True"] * 5
    assert AnomalyNcd.load_from_checkpoint(output / "model.ckpt").slots.num_novel == 3


def test_what_does_not_go_is_named(clustered_run, new, tmp_path):
    with pytest.raises(SystemExit, match="is the folder of the run itself"):
        extend(clustered_run, new, clustered_run)
    with pytest.raises(SystemExit, match="run was made from saved maps, so new images need maps as well"):
        main(["extend", str(clustered_run), "--images", str(new.images), "--output", str(tmp_path / "a")])
    with pytest.raises(SystemExit, match=r"Give either `--anomaly_maps` or `--detector\.class_path`"):
        extend(clustered_run, new, tmp_path / "b", "--detector.class_path", "Patchcore")
    with pytest.raises(SystemExit, match=r"There is no .*results\.npz"):
        extend(tmp_path / "nothing", new, tmp_path / "c")
    with pytest.raises(SystemExit, match="`num_new_classes` must be 1 or more, got 0"):
        extend(clustered_run, new, tmp_path / "d", "--num_new_classes", "0")
    shutil.copytree(clustered_run, tmp_path / "older")
    saved = torch.load(tmp_path / "older" / "model.ckpt", weights_only=True)
    state = saved["state_dict"]
    state.update({name: value[:0] for name, value in state.items() if name.startswith("model.rejection.")})
    torch.save(saved, tmp_path / "older" / "model.ckpt")
    with pytest.raises(SystemExit, match="doesn't know the regions that it was made from"):
        extend(tmp_path / "older", new, tmp_path / "e")
