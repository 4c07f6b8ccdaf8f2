# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.cli.main import main
from anomalib_ncd.results.run_results import RunResults

SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--seed", "5"]
COLOURS = {"good": 0, "line": (20, 20, 20), "square": (230, 230, 230), "disc": (0, 0, 250)}
KINDS = ("good", "line", "square")


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


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def kind_of(row):
    return row["image"].split("/")[-2]


def extend(run, data, output, *more):
    flags = ["--images", str(data.images), "--anomaly_maps", str(data.maps), "--output", str(output)]
    main(["extend", str(run), *flags, *more])
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
    main(["discover", *flags, "--output", str(output), "--method", method, "--max_epochs", "1", *SMALL])
    named = {"names": {RunResults.load(output / "results.npz").slot_names[1]: "scratch"}}
    (output / "class_names.json").write_text(json.dumps(named))
    return output


@pytest.fixture(scope="module")
def clustered(known, tmp_path_factory):
    return discover("cluster", known, tmp_path_factory.mktemp("clustered") / "run")


@pytest.fixture(scope="module")
def trained(known, tmp_path_factory):
    return discover("train", known, tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module", params=["clustered", "trained"])
def run(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def extended(run, new, tmp_path_factory):
    return extend(run, new, tmp_path_factory.mktemp("extended") / "run", "--labels", "folders")


def test_a_new_kind_becomes_a_class_behind_the_old_ones(run, extended):
    before, after = (RunResults.load(folder / "results.npz") for folder in (run, extended))
    assert after.slot_names[: len(before.slot_names)] == before.slot_names
    assert len(after.slot_names) == len(before.slot_names) + 1
    old, model = (AnomalyNcd.load_from_checkpoint(folder / "model.ckpt") for folder in (run, extended))
    assert model.class_names == [before.slot_names[0], "scratch", before.slot_names[2], after.slot_names[3]]
    assert model.slots.has_normal == old.slots.has_normal
    torch.testing.assert_close(model.model.heads.weight[:, :3], old.model.heads.weight)
    assert torch.equal(model.score_range, old.score_range)
    rows = rows_of(extended / "predictions.csv")
    discs = [row for row in rows if kind_of(row) == "disc"]
    assert [row["class"] for row in discs] == [after.slot_names[3]] * 5
    assert {row["unknown"] for row in discs} == {"False"}


def test_the_images_of_the_run_keep_their_classes(run, extended):
    before = {row["image"]: row["class"] for row in rows_of(run / "predictions.csv")}
    after = {row["image"]: row["class"] for row in rows_of(extended / "predictions.csv")}
    assert len(before) == 36
    assert len(after) == 36 + 15
    slot_names = RunResults.load(run / "results.npz").slot_names
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
    found = {row["image"]: row["class"] for row in rows_of(tmp_path / "results" / "predictions.csv")}
    expected = {row["image"]: row["class"] for row in rows_of(extended / "predictions.csv")}
    assert found == {image: expected[image] for image in found}
    assert len(found) == 15
    # The same images again are taken once, and what is unknown about them is what was unknown still.
    again = extend(extended, new, tmp_path / "again")
    unknown = [[row["unknown"] for row in rows_of(run / "regions.csv")] for run in (extended, again)]
    assert unknown[0] == unknown[1]
    assert ("Every region is like one of the run" in caplog.text) == ("True" not in unknown[0])
    assert RunResults.load(again / "results.npz").slot_names == RunResults.load(extended / "results.npz").slot_names
    assert len(rows_of(again / "predictions.csv")) == 51
    assert {row["image"]: row["class"] for row in rows_of(again / "predictions.csv")} == expected


def test_a_given_number_of_classes(clustered, new, tmp_path):
    output = extend(clustered, new, tmp_path / "run", "--num_new_classes", "2")
    assert AnomalyNcd.load_from_checkpoint(output / "model.ckpt").slots.num_novel == 5


def test_small_groups_stay_unknown(clustered, new, tmp_path, caplog):
    caplog.set_level("INFO")
    output = extend(clustered, new, tmp_path / "run", "--min_regions", "50")
    assert "New classes: none." in caplog.text
    discs = [row for row in rows_of(output / "predictions.csv") if kind_of(row) == "disc"]
    assert [row["unknown"] for row in discs] == ["True"] * 5
    assert AnomalyNcd.load_from_checkpoint(output / "model.ckpt").slots.num_novel == 3


def test_what_does_not_go_is_named(clustered, new, tmp_path):
    with pytest.raises(SystemExit, match="is the folder of the run itself"):
        extend(clustered, new, clustered)
    with pytest.raises(SystemExit, match="run was made from saved maps, so new images need maps as well"):
        main(["extend", str(clustered), "--images", str(new.images), "--output", str(tmp_path / "a")])
    with pytest.raises(SystemExit, match=r"Give either `--anomaly_maps` or `--detector\.class_path`"):
        extend(clustered, new, tmp_path / "b", "--detector.class_path", "Patchcore")
    with pytest.raises(SystemExit, match=r"There is no .*results\.npz"):
        extend(tmp_path / "nothing", new, tmp_path / "c")
    with pytest.raises(SystemExit, match="`num_new_classes` must be 1 or more, got 0"):
        extend(clustered, new, tmp_path / "d", "--num_new_classes", "0")
    shutil.copytree(clustered, tmp_path / "older")
    saved = torch.load(tmp_path / "older" / "model.ckpt", weights_only=True)
    state = saved["state_dict"]
    state.update({name: value[:0] for name, value in state.items() if name.startswith("model.rejection.")})
    torch.save(saved, tmp_path / "older" / "model.ckpt")
    with pytest.raises(SystemExit, match="doesn't know the regions that it was made from"):
        extend(tmp_path / "older", new, tmp_path / "e")
