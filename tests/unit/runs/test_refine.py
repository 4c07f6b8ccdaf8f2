# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json

import numpy as np
import pytest
import torch

from anomalib_ncd.cli.main import main
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.visualization.report.crops import sheets_of_report

NETWORK = ["--backbone", "test_vit", "--pretrained", "false", "--training.mask_layers", "3", "--seed", "5"]
SMALL = [*NETWORK, "--regions.method", "mebin", "--regions.erosion_size", "3"]


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def classes_of(run, kind):
    """Classes of the regions of a kind's images."""
    return [row["class"] for row in rows_of(run / "regions.csv") if row["image"].split("/")[-2] == kind]


def said_of(run, kind, name, count, key="class"):
    """What a user says of the first regions of a kind."""
    results = RunResults.load(run / "results.npz")
    images = [results.image_keys[image] for image in results.batch.region_image_index.tolist()]
    boxes = results.batch.region_box_xyxy.tolist()
    regions = [(image, box) for image, box in zip(images, boxes, strict=True) if image.startswith(kind)]
    return [{"image": image, "box": box, key: name} for image, box in regions[:count]]


def refine(run, output, content):
    file = output.with_suffix(".json")
    file.write_text(json.dumps(content))
    main(["refine", str(run), "--corrections", str(file), "--output", str(output)])
    return output


@pytest.fixture(scope="module")
def run(clustered_run):
    return clustered_run


@pytest.fixture(scope="module")
def refined(run, tmp_path_factory):
    """The run with a class of its user's."""
    output = tmp_path_factory.mktemp("refined") / "refined"
    regions = [*said_of(run, "line", "long line", 3), *said_of(run, "square", "square", 3)]
    return refine(run, output, {"regions": regions})


def test_a_class_of_the_users_takes_what_is_alike(refined):
    assert set(classes_of(refined, "line")) == {"long line"}
    assert set(classes_of(refined, "square")) == {"square"}
    results = RunResults.load(refined / "results.npz")
    assert (results.batch.region_class_probabilities.argmax(1) >= 0).all()
    names = json.loads((refined / "class_names.json").read_text())["names"]
    assert {"long line", "square"} <= set(names.values())
    assert "cluster_agreement" not in results.facts
    assert (refined / "report.html").is_file()


def test_the_result_is_a_run_like_any_other(tiny_run, refined, tmp_path):
    model = AnomalyNcd.load_from_checkpoint(refined / "model.ckpt")
    results = RunResults.load(refined / "results.npz")
    assert model.slots.default_names == results.slot_names
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps)]
    main(["classify", str(refined), *flags, "--output", str(tmp_path / "classified")])
    there = {row["image"]: row["class"] for row in rows_of(tmp_path / "classified" / "predictions.csv")}
    assert there == {row["image"]: row["class"] for row in rows_of(refined / "predictions.csv")}
    main(["extend", str(refined), *flags, "--output", str(tmp_path / "extended")])
    assert set(classes_of(tmp_path / "extended", "line")) == {"long line"}
    assert len(json.loads((tmp_path / "extended" / "corrections.json").read_text())["regions"]) == 6
    main(["name", str(refined), "--names", str(refined / "class_names.json")])


def test_images_without_a_region_stay_normal_and_the_run_can_be_packed(tiny_run, tmp_path):
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps)]
    before = tmp_path / "run"
    main(["discover", *flags, "--output", str(before), *NETWORK, "--num_novel_classes", "2"])
    assert not classes_of(before, "good")  # nothing is found in them by default
    said = [*said_of(before, "line", "long line", 3), *said_of(before, "square", "square", 3)]
    out = refine(before, tmp_path / "refined", {"regions": said})
    wanted = {row["image"]: row["class"] for row in rows_of(out / "predictions.csv")}
    assert {name for image, name in wanted.items() if "/good/" in image} == {"normal"}
    assert classes_of(out, "line").count("long line") >= 5
    assert classes_of(out, "square").count("square") >= 5
    main(["pack", str(out), "--runtime", "torch", "--output", str(tmp_path / "packed.zip")])
    for number, classifier in enumerate((out, tmp_path / "packed.zip")):
        folder = tmp_path / f"by_{number}"
        main(["classify", str(classifier), *flags, "--output", str(folder)])
        assert {row["image"]: row["class"] for row in rows_of(folder / "predictions.csv")} == wanted

    # An image without a region is of the class that its user says, which may have no region at all.
    good = [key for key in RunResults.load(out / "results.npz").image_keys if key.startswith("good")]
    said = [{"image": good[0], "class": "long line"}, {"image": good[1], "class": "smear"}]
    of_others = [{"image": "another/1", "class": "ghost"}]  # of an image that the run lacks; makes no class
    by_image = refine(out, tmp_path / "by_image", {"regions": said + of_others})
    for name in ("corrections.json", "class_names.json", "made_from.json"):
        assert "ghost" not in (by_image / name).read_text()
    main(["extend", str(by_image), *flags, "--output", str(tmp_path / "extended")])
    main(["export", str(by_image), "--format", "folders", "--output", str(tmp_path / "folders")])
    for run in (by_image, refine(by_image, tmp_path / "later", {}), tmp_path / "extended"):
        rows = {row["image"].split("/", 1)[-1]: row for row in rows_of(run / "predictions.csv")}
        found = {key: row for image, row in rows.items() for key in good[:3] if f"{key}." in image}
        assert [found[key]["class"] for key in good[:3]] == ["long line", "smear", "normal"]
        assert [found[key]["normal"] for key in good[:3]] == ["False", "False", "True"]
        assert [found[key]["confidence"] for key in good[:2]] == ["1.0", "1.0"]
    assert len(list((tmp_path / "folders" / "smear").iterdir())) == 1
    report = (by_image / "report.html").read_text()
    assert 'value="smear"' in report
    assert "0 regions in 1 image" in report


def test_corrections_that_speak_of_nothing_in_the_run_are_named(run, tmp_path, caplog):
    [found] = said_of(run, "line", "long line", 1)
    lost = [{"image": f"another/{number}", "class": "ghost"} for number in range(4)]
    aside = {**found, "box": [900, 900, 910, 910]}
    with caplog.at_level("WARNING"):
        refine(run, tmp_path / "refined", {"regions": [found, aside, *lost]})
    assert "5 of 6 corrections speak of regions or images that the run lacks" in caplog.text
    assert f"of {found['image']}, another/0, another/1. Use its own report" in caplog.text


def test_the_report_has_the_crops_of_before(run, refined):
    before, after = (sheets_of_report(folder / "report.html") for folder in (run, refined))
    assert before == after
    assert before.data_uris


def test_corrections_are_kept_and_carried_on(run, tmp_path):
    refined = refine(run, tmp_path / "first", {"regions": said_of(run, "line", "long line", 3)})
    kept = json.loads((refined / "corrections.json").read_text())
    assert len(kept["regions"]) == 3
    later = [*said_of(run, "line", "normal", 1), *said_of(run, "square", "square", 3)]
    again = refine(refined, tmp_path / "again", {"regions": later})
    after = json.loads((again / "corrections.json").read_text())["regions"]
    assert len(after) == 6
    assert sum(one["class"] == "normal" for one in after) == 1
    assert classes_of(again, "line").count("normal") >= 1
    assert set(classes_of(again, "square")) == {"square"}
    # What the clusters said stays what corrections are weighed against.
    first, second = (np.load(folder / "prior.npz") for folder in (refined, again))
    known = first["prior"].sum(axis=1) > 0.5
    assert known.any()
    for number, name in enumerate(second["slot_names"].tolist()):
        if name in first["slot_names"].tolist():
            before = first["prior"][:, first["slot_names"].tolist().index(name)]
            np.testing.assert_allclose(second["prior"][known, number], before[known], atol=0.01)


def test_corrections_follow_to_a_run_that_is_made_anew(tiny_run, refined, tmp_path):
    output = tmp_path / "anew"
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps), "--labels", "folders"]
    main(["discover", *flags, "--output", str(output), "--method", "cluster", *SMALL, "--num_novel_classes", "3"])
    main(["refine", str(output), "--corrections", str(refined / "corrections.json"), "--output", str(tmp_path / "new")])
    assert len(set(classes_of(tmp_path / "new", "line"))) == 1
    assert set(classes_of(tmp_path / "new", "line")).isdisjoint(classes_of(tmp_path / "new", "square"))


def test_not_this_and_classes_that_are_left_empty(run, tmp_path):
    names = RunResults.load(run / "results.npz").slot_names
    first = said_of(run, "line", None, 1)[0] | {}
    first.pop("class")
    taken = classes_of(run, "line")[0]
    out = refine(run, tmp_path / "not", {"regions": [{**first, "not": [taken]}]})
    assert classes_of(out, "line")[0] != taken
    everything = [one for kind in ("good", "line", "square") for one in said_of(run, kind, names[-1], 99)]
    one_class = refine(run, tmp_path / "one", {"regions": everything})
    assert RunResults.load(one_class / "results.npz").slot_names[-1] == names[-1]
    assert {row["class"] for row in rows_of(one_class / "regions.csv")} == {names[-1]}


def test_names_and_merges_of_the_file_count(run, tmp_path):
    names = RunResults.load(run / "results.npz").slot_names
    out = refine(run, tmp_path / "named", {"names": {names[-1]: "dent"}, "same": []})
    assert "dent" in {row["class"] for row in rows_of(out / "regions.csv")}
    assert torch.load(out / "model.ckpt", weights_only=True)["anomalib_ncd"]["slots"]["given_names"][-1] == "dent"


def test_a_number_of_classes_merges_and_splits(run, tmp_path):
    def classes(number):
        out = refine(run, tmp_path / str(number), {"num_classes": number})
        return [set(classes_of(out, kind)) for kind in ("good", "line", "square")]

    _, line, square = classes(3)
    assert len(line) == len(square) == 1
    assert line != square
    classes(6)
    assert len(RunResults.load(tmp_path / "6" / "results.npz").batch.region_pred_class_id.unique()) > 3
    with pytest.raises(SystemExit, match="whole number from 2 to 20"):
        classes(1)


def test_a_trained_run_keeps_its_base_classes_and_can_be_packed(tiny_run, tmp_path):
    output, flags = (
        tmp_path / "trained",
        ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps)],
    )
    more = ["--base", str(tiny_run.base), "--max_epochs", "1", "--accelerator", "cpu", "--num_novel_classes", "3"]
    main(["discover", *flags, "--output", str(output), "--method", "train", *SMALL, *more])
    said = [*said_of(output, "line", "long line", 4), *said_of(output, "square", "square", 4)]
    out = refine(output, tmp_path / "refined", {"regions": said})
    before, after = (AnomalyNcd.load_from_checkpoint(run / "model.ckpt") for run in (output, out))
    assert after.slots.base_names == before.slots.base_names
    torch.testing.assert_close(after.model.heads.weight[:, :2], before.model.heads.weight[:, :2])
    assert set(classes_of(out, "line")) == {"long line"}
    main(["classify", str(out), *flags, "--output", str(tmp_path / "classified")])
    there = {row["image"]: row["class"] for row in rows_of(tmp_path / "classified" / "predictions.csv")}
    assert there == {row["image"]: row["class"] for row in rows_of(out / "predictions.csv")}
    main(["pack", str(out), "--runtime", "torch", "--output", str(tmp_path / "packed.zip")])
    main(["classify", str(tmp_path / "packed.zip"), *flags, "--output", str(tmp_path / "by_artefact")])
    assert there == {row["image"]: row["class"] for row in rows_of(tmp_path / "by_artefact" / "predictions.csv")}


def test_what_cannot_be_is_said(run, tmp_path):
    names = RunResults.load(run / "results.npz").slot_names
    first = said_of(run, "line", None, 1)[0]
    first.pop("class")
    with pytest.raises(SystemExit, match="said to be of no class"):
        refine(run, tmp_path / "none", {"regions": [{**first, "not": names}]})
    with pytest.raises(SystemExit, match="choose another one"):
        main(["refine", str(run), "--corrections", str(tmp_path / "none.json"), "--output", str(run)])
