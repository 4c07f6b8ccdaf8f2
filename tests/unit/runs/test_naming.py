# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.naming import carry_names, check_names, digest_of_classes, slots_that_stayed

SLOTS = ["normal", "class_1", "class_2"]


def results(slots, names=SLOTS, first_key=0, shift=0.0):
    """Results of images with a region each, sorted into the given slots."""
    count = len(slots)
    batch = NcdBatch(
        [f"{first_key + index}.png" for index in range(count)],
        image_size=torch.full((count, 2), 64),
        image=None,
        region_mask=None,
        region_image_index=torch.arange(count),
        region_box_xyxy=torch.tensor([[0.0, 0.0, 8.0, 8.0]]).expand(count, 4) + shift,
        region_score=torch.ones(count),
        region_area=torch.ones(count, dtype=torch.long),
        region_class_probabilities=torch.eye(len(names))[torch.tensor(slots)],
    )
    keys = [str(first_key + index) for index in range(count)]
    return RunResults(batch, keys, list(names), "regions", np.zeros((count, 2), np.float32), [])


def given(folder, **names):
    (folder / "class_names.json").write_text(json.dumps(names))


def kept(folder):
    return json.loads((folder / "class_names.json").read_text())


def test_no_names_are_no_names(tmp_path):
    assert carry_names(tmp_path, results([0, 1, 2])) == SLOTS
    assert not list(tmp_path.iterdir())


def test_names_of_the_same_classes_stay_and_say_of_which(tmp_path):
    same = results([0, 1, 1, 2])
    same.save(tmp_path / "results.npz")
    given(tmp_path, names={"class_2": "dent"})
    assert carry_names(tmp_path, same) == ["normal", "class_1", "dent"]
    assert kept(tmp_path) == {"names": {"class_2": "dent"}, "same": [], "of": digest_of_classes(same)}
    assert carry_names(tmp_path, same) == ["normal", "class_1", "dent"]


def test_names_go_with_the_majority_of_their_regions(tmp_path):
    results([1, 1, 1, 2, 2, 0]).save(tmp_path / "results.npz")
    given(tmp_path, names={"class_1": "scratch", "class_2": "dent"})
    new = results([2, 2, 1, 1, 1, 0, 1, 2])
    assert carry_names(tmp_path, new) == ["normal", "dent", "scratch"]
    # Killed before the new results were saved: the names are those of the new ones already.
    assert carry_names(tmp_path, new) == ["normal", "dent", "scratch"]


@pytest.mark.parametrize(("shift", "stays"), [(0.0, True), (1.0, True), (3.0, False)])
def test_a_region_may_move_a_little(shift, stays):
    stayed = slots_that_stayed(results([1, 1, 2]), results([2, 2, 1], shift=shift))
    assert stayed == ({"class_1": "class_2", "class_2": "class_1"} if stays else {})


def test_names_of_classes_that_fell_apart_are_dropped(tmp_path, caplog):
    results([1, 1, 1, 1, 2, 2]).save(tmp_path / "results.npz")
    given(tmp_path, names={"class_1": "scratch", "class_2": "dent"}, same=[["class_1", "normal"]])
    given(tmp_path, names={"class_1": "scratch", "class_2": "dent"})
    assert carry_names(tmp_path, results([1, 1, 2, 2, 0, 0])) == SLOTS
    assert "the names of 'dent', 'scratch' were dropped" in caplog.text
    assert json.loads((tmp_path / "class_names.old.json").read_text())["names"]["class_1"] == "scratch"
    assert kept(tmp_path)["names"] == {}


def test_groups_go_along_and_normal_stays_normal(tmp_path):
    results([0, 1, 2, 3], [*SLOTS, "class_3"]).save(tmp_path / "results.npz")
    given(tmp_path, same=[["class_1", "class_3"]], names={"class_1": "dent"})
    new = results([1, 3, 2, 0], [*SLOTS, "class_3"])
    assert slots_that_stayed(results([0, 1, 2, 3], [*SLOTS, "class_3"]), new) == {
        "class_1": "class_3",
        "class_2": "class_2",
    }
    assert carry_names(tmp_path, new) == ["normal", "class_1", "class_2", "dent"]
    assert kept(tmp_path)["same"] == []


def test_names_of_results_that_are_gone_are_dropped(tmp_path, caplog):
    given(tmp_path, names={"class_1": "scratch"}, of="another digest")
    assert carry_names(tmp_path, results([0, 1, 2])) == SLOTS
    assert "'scratch' were dropped" in caplog.text


def test_wrong_names_are_said_early(tmp_path):
    given(tmp_path, names={"class_3": "a"})
    with pytest.raises(ValueError, match="speaks of 'class_3'"):
        check_names(tmp_path, SLOTS)
    results([0, 3], [*SLOTS, "class_3"]).save(tmp_path / "results.npz")
    check_names(tmp_path, SLOTS)  # they name the classes that are there


def test_the_digest_knows_slots_and_regions():
    assert digest_of_classes(results([0, 1])) == digest_of_classes(results([0, 1]))
    others = [results([1, 0]), results([0, 1], first_key=5), results([0, 1, 1])]
    assert len({digest_of_classes(one) for one in [results([0, 1]), *others]}) == 4
