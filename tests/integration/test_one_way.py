# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A run, ``Engine.predict``, ``classify`` and a torch-free artefact say the same of the same images, however odd."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anomalib.engine import Engine

import anomalib_ncd
from anomalib_ncd import AnomalyNcd, NcdDataModule, discover
from anomalib_ncd.cli.main import main
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.results.tables import COLUMNS, write_tables
from anomalib_ncd.settings import RunOptions, TrainingSettings

pytestmark = pytest.mark.usefixtures("little_of_normal", "short_vit")

NORMAL_NAME = "=good part"  # a name that a spreadsheet would run
EMPTY = {"b/000.png", "good/empty.png", "good/empty_too.png"}
CPU = RunOptions(accelerator="cpu")
TABLES = ("predictions.csv", "regions.csv")
TORCH_FREE = """
import sys
from pathlib import Path
import numpy as np
from anomalib_ncd.deploy import AnomalyClassifier
from anomalib_ncd.deploy.line.folder_run import classify_folder

artefact, images, maps, output = map(Path, sys.argv[1:])

class SavedMaps:
    def detect(self, found, paths):
        return [np.load((maps / path.relative_to(images)).with_suffix(".npy")) for path in paths]

classify_folder(AnomalyClassifier.load(artefact, SavedMaps()), images, output, pictures=False)
heavy = {"torch", "torchvision", "lightning", "anomalib", "timm", "scipy", "sklearn"}
found = sorted(heavy & {name.partition(".")[0] for name in sys.modules})
sys.exit(f"imported {found}" if found else 0)
"""


def draw(places, size_hw, rng):
    """A grey plate with bright or dark squares, and its anomaly map, higher where the square is larger."""
    image = np.clip(rng.normal(120, 4, (*size_hw, 3)), 0, 255).astype(np.uint8)
    anomaly_map = rng.uniform(0.05, 0.15, size_hw).astype(np.float32)
    for number, (left, top, side) in enumerate(places):
        image[top : top + side, left : left + side] = (230, 200, 20)[number % 3]
        anomaly_map[top : top + side, left : left + side] = 0.5 + side / 60
    return image, cv2.blur(anomaly_map, (3, 3))


def write(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), image)


def write_map(file, anomaly_map):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, anomaly_map)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Folders of images and maps that readers, listings and pairings have got wrong before."""
    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    images, maps, elsewhere = folder / "images", folder / "maps", folder / "elsewhere"
    one, two, none = [(10, 12, 18)], [(4, 4, 16), (40, 40, 20)], []
    plates = {
        "000.png": one,  # a name that each folder has
        "a/000.png": two,
        "b/000.png": none,
        "b/a/000.png": [(30, 30, 22)],
        "b/a/001.png": [(8, 30, 14), (40, 6, 14)],
        "=1+1.png": [(20, 20, 24)],
        "c d/größe, 1.png": one,
        "good/empty.png": none,
        "good/empty_too.png": none,
    }
    for name, places in plates.items():
        image, anomaly_map = draw(places, (64, 80) if "a/" in name else (64, 64), rng)
        write(images / name, image)
        write_map((maps / name).with_suffix(".npy"), anomaly_map)
    image, anomaly_map = draw(one, (64, 64), rng)
    write(images / "grey.png", image[..., 0])
    write(images / "sixteen.png", image[..., 0].astype(np.uint16) * 257)
    write(images / "alpha.png", np.dstack([image, np.full((64, 64), 7, np.uint8)]))
    write(elsewhere / "linked.png", image)
    write(elsewhere / "folder" / "inside.png", image)
    (images / "link.png").symlink_to(elsewhere / "linked.png")
    (images / "linked_folder").symlink_to(elsewhere / "folder")
    for name in ("grey", "sixteen", "alpha", "link", "linked_folder/inside"):
        write_map(maps / f"{name}.npy", anomaly_map)
    (images / "notes.txt").write_text("no image")
    write(images / ".hidden.png", image)
    write(images / ".part" / "000.png", image)
    return images, maps


@pytest.fixture(scope="module", params=["mebin", "elements"])
def run(request, odd, short_vit, tmp_path_factory):
    """A run that was trained for an epoch and named; *normal* has another name. Three images have no element."""
    torch.manual_seed(0)
    output = tmp_path_factory.mktemp("run") / "run"
    training = TrainingSettings(mask_layers=3, num_cached_views=2)
    model = AnomalyNcd(backbone=short_vit, pretrained=False, num_novel_classes=3, training=training)
    datamodule = NcdDataModule(*odd, regions=RegionSettings(method=request.param), train_batch_size=8)
    discover(model, datamodule, output, "train", RunOptions(max_epochs=1, accelerator="cpu"))
    names = output.parent / "names.json"
    names.write_text(json.dumps({"names": {"normal": NORMAL_NAME, "class_1": "dent"}}))
    main(["name", str(output), "--names", str(names)])
    return output


@pytest.fixture(scope="module")
def artefact(run):
    """The run packed for ONNX Runtime."""
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    folder = run.parent / "artefact"
    main(["pack", str(run), "--runtime", "onnx", "--output", str(folder)])
    return folder


def by_engine(run, artefact, odd, output):
    del artefact
    model = AnomalyNcd.load_from_checkpoint(run / "model.ckpt")
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=output, **options)
    batches = engine.predict(model, datamodule=NcdDataModule(*odd, eval_batch_size=5))
    write_tables(output, [result for batch in batches for result in batch.image_results(model.region_merging)])


def by_classify(model, odd, output):
    images, maps = odd
    flags = ["--images", str(images), "--anomaly_maps", str(maps), "--output", str(output), "--pictures", "false"]
    main(["classify", str(model), *flags])


def by_run(run, artefact, odd, output):
    del artefact
    by_classify(run, odd, output)


def by_artefact(run, artefact, odd, output):
    del run
    by_classify(artefact, odd, output)


def without_torch(run, artefact, odd, output):
    del run
    code = f"import sys; sys.path.insert(0, {str(Path(anomalib_ncd.__file__).parents[1])!r})\n{TORCH_FREE}"
    arguments = [sys.executable, "-c", code, *map(str, (artefact, *odd, output))]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def read_table(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return [{name: re.sub("^'=", "=", cell) for name, cell in row.items()} for row in csv.DictReader(stream)]


def rows_of(folder, name):
    """Rows of a table in an order of their own."""
    return sorted(read_table(folder / name), key=lambda row: (row["image"], row.get("left"), row.get("top")))


def assert_same_tables(output, run):
    for name in TABLES:
        found, wanted = rows_of(output, name), rows_of(run, name)
        assert [row["image"] for row in found] == [row["image"] for row in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert tuple(one) == tuple(other) == COLUMNS[name]
            for column, value in other.items():
                if column in {"confidence", "score", "left", "top", "right", "bottom"}:
                    assert float(one[column]) == pytest.approx(float(value), abs=1e-4), (one, column)
                else:
                    assert one[column] == value, (one, column)


@pytest.mark.parametrize("way", [by_engine, by_run, by_artefact, without_torch])
def test_every_way_says_what_the_run_said(way, run, artefact, odd, tmp_path):
    way(run, artefact, odd, tmp_path)
    assert_same_tables(tmp_path, run)


@pytest.mark.parametrize("compared", [False, True])
def test_every_way_takes_networks_side_by_side(compared, odd, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    torch.manual_seed(0)
    run, artefact, regions = tmp_path / "run", tmp_path / "artefact", RegionSettings(method="elements")
    monkeypatch.setattr("anomalib_ncd.models.describer.MIN_NORMAL_IMAGES", 1)
    backbone, normal = ("resnet10t+short_vit", odd[0] / "good") if compared else ("short_vit+resnet10t", None)
    model = AnomalyNcd(backbone, pretrained=False, image_size=64, num_novel_classes=3)
    discover(model, NcdDataModule(*odd, regions=regions, normal_images=normal), run, "cluster", CPU)
    main(["pack", str(run), "--runtime", "onnx", "--output", str(artefact)])
    for way in (by_engine, by_run, by_artefact, without_torch):
        way(run, artefact, odd, tmp_path / way.__name__)
        assert_same_tables(tmp_path / way.__name__, run)
    main(["pack", str(run), "--runtime", "torch", "--output", str(tmp_path / "torch")])
    by_classify(tmp_path / "torch", odd, tmp_path / "by_torch")
    assert_same_tables(tmp_path / "by_torch", run)
    results = RunResults.load(run / "results.npz")
    image, box = results.batch.region_image_index[0], results.batch.region_box_xyxy[0]
    said = {"image": results.image_keys[image], "box": box.tolist(), "class": "chosen"}
    (tmp_path / "said.json").write_text(json.dumps({"regions": [said]}))
    main(["refine", str(run), "--corrections", str(tmp_path / "said.json"), "--output", str(tmp_path / "refined")])
    flags = ["--images", str(odd[0]), "--anomaly_maps", str(odd[1]), "--output", str(tmp_path / "extended")]
    main(["extend", str(tmp_path / "refined"), *flags])
    for folder in ("refined", "extended"):
        assert "chosen" in {row["class"] for row in rows_of(tmp_path / folder, "regions.csv")}


def test_the_rows_are_those_of_the_images(run, odd, request):
    images, _ = odd
    rows = {Path(row["image"]).relative_to(images).as_posix(): row for row in read_table(run / "predictions.csv")}
    expected = {"000.png", "a/000.png", "b/000.png", "b/a/000.png", "b/a/001.png", "=1+1.png", "c d/größe, 1.png"}
    expected |= {"good/empty.png", "good/empty_too.png", "grey.png", "sixteen.png", "alpha.png", "link.png"}
    assert expected <= set(rows)
    assert not [name for name in rows if name.startswith(".")]
    assert int(rows["a/000.png"]["num_regions"]) == 2
    assert rows["good/empty.png"]["normal"] == "True"
    if "elements" in request.node.name:
        with_region = {Path(row["image"]).relative_to(images).as_posix() for row in read_table(run / "regions.csv")}
        assert {name for name, row in rows.items() if row["num_regions"] == "0"} == set(rows) - with_region == EMPTY
        assert {rows[name]["class"] for name in EMPTY} == {NORMAL_NAME}
        assert {float(rows[name]["confidence"]) for name in EMPTY} == {1.0}
    assert "Nothing found in 3 images" in (run / "report.html").read_text(encoding="utf-8")
    assert {row["class"] for row in rows.values()} <= {NORMAL_NAME, "dent", "class_2"}
    for row in rows.values():
        if row["class"] == NORMAL_NAME and row["unknown"] == "False":
            assert row["normal"] == "True"
    assert json.loads((run / "class_names.json").read_text())["names"]["normal"] == NORMAL_NAME
