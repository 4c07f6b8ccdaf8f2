# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.results.run_results import RunResults, free_keys, join_labels, select_images

BY_REGION = torch.tensor([[0.4, 0.3, 0.3], [0.1, 0.9, 0.0], [0.2, 0.2, 0.6]])
SLOTS = ["normal", "class_1", "class_2"]

IMAGE_OF_REGION = [0, 2, 1, 2, 0]


@pytest.fixture
def results():
    batch = NcdBatch(
        image_path=["/data/ä/1.png", "2.png"],
        image_size=torch.tensor([[60, 80], [60, 81]]),
        image=None,
        region_mask=None,
        region_image_index=torch.tensor([0, 0, 1]),
        region_box_xyxy=torch.tensor([[0, 0, 5, 5], [1, 1.5, 9, 9.5], [2, 2, 3, 3]]),
        region_score=torch.tensor([0.5, 0.25, 1.0]),
        region_area=torch.tensor([7, 8, 0]),
        class_id=torch.tensor([1, -1]),
        region_class_id=torch.tensor([1, 1, -1]),
        region_feature=torch.tensor([[1.0, 0.5], [0.25, 0], [0, 2]]),
        region_reference=torch.tensor([[0.5], [0.25], [1]]),
        region_head_class_id=torch.tensor([[0, 1], [1, 1], [2, 2]]),
    ).with_predictions(BY_REGION, RegionMerging(tuple(SLOTS), 0))
    position = np.array([[0, 1], [0.5, -1], [1, 0]], np.float32)
    return RunResults(batch, ["ä/1", "2"], SLOTS, "regions", position, ["good", "dent"], 0, 50.0)


def same(first, second):
    for field in fields(NcdBatch):
        one, other = getattr(first.batch, field.name), getattr(second.batch, field.name)
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other)
        else:
            assert one == other
    np.testing.assert_array_equal(first.region_position, second.region_position)
    for field in fields(RunResults):
        if field.name not in {"batch", "region_position"}:
            assert getattr(first, field.name) == getattr(second, field.name)


def test_results_come_back_as_they_were_saved(results, tmp_path):
    results.save(tmp_path / "results.npz")
    same(results, RunResults.load(tmp_path / "results.npz"))
    assert [path.name for path in tmp_path.iterdir()] == ["results.npz"]


def test_what_is_not_known_stays_unknown(results, tmp_path):
    unlabelled = replace(results, batch=replace(results.batch, class_id=None, region_feature=None), label_names=[])
    unlabelled.save(tmp_path / "results.npz")
    same(unlabelled, RunResults.load(tmp_path / "results.npz"))


def test_the_estimated_number_of_classes_is_kept(results, tmp_path):
    estimate = {"count": 3, "low": 2, "high": 3, "curve": [[2, 0.5], [3, 0.75]], "method": "a method"}
    replace(results, num_classes_estimate=estimate).save(tmp_path / "results.npz")
    assert RunResults.load(tmp_path / "results.npz").num_classes_estimate == estimate


def test_half_precision_predictions_are_kept_in_single_precision(results, tmp_path):
    batch = replace(results.batch, class_probabilities=BY_REGION[:2].bfloat16())
    replace(results, batch=batch).save(tmp_path / "results.npz")
    loaded = RunResults.load(tmp_path / "results.npz").batch.class_probabilities
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, BY_REGION[:2].bfloat16().float())


def test_names_choose_the_classes_anew_and_leave_the_old_results(results):
    named = results.showing(results.image_results(["normal", "scratch", "scratch"]))
    assert named.batch.region_pred_class_id.tolist() == [1, 1, 2]
    torch.testing.assert_close(named.batch.region_pred_class_score, torch.tensor([0.6, 0.9, 0.8]))
    assert named.batch.pred_class_id.tolist() == [1, 2]
    # Areas of 7 and 8 under T = 50 weigh nearly the same: 0.6 and 0.9.
    torch.testing.assert_close(named.batch.pred_class_score, torch.tensor([0.7505, 0.8]), atol=1e-3, rtol=0)
    assert results.batch.region_pred_class_id.tolist() == [0, 1, 2]
    torch.testing.assert_close(named.batch.region_class_probabilities, BY_REGION)


def test_images_have_results_under_any_names(results):
    first, second = results.image_results(["normal", "dent", "good part"])
    assert (first.class_name, first.is_normal, first.size_hw) == ("dent", False, (60, 80))
    assert (second.class_name, second.is_normal) == ("good part", True)  # nothing was found
    assert results.merging(["a", "b", "c"]) == RegionMerging(("a", "b", "c"), 0, 50.0)
    assert [(str(record.path), record.key) for record in results.images] == [("/data/ä/1.png", "ä/1"), ("2.png", "2")]


def test_missing_results_and_predictions_are_named(results, tmp_path):
    with pytest.raises(FileNotFoundError, match="finished run of `anomalib-ncd discover`"):
        RunResults.load(tmp_path / "results.npz")
    with pytest.raises(ValueError, match="holds no predictions"):
        replace(results, batch=replace(results.batch, region_class_probabilities=None)).image_results(["a", "b", "c"])


def test_results_of_another_version_are_refused(results, tmp_path):
    results.save(tmp_path / "results.npz")
    with np.load(tmp_path / "results.npz") as stored:
        arrays = dict(stored)
    plain = json.loads(str(arrays.pop("plain")))
    del plain["normal_slot"]
    np.savez(tmp_path / "results.npz", plain=np.array(json.dumps(plain)), **arrays)
    with pytest.raises(ValueError, match="written by another version"):
        RunResults.load(tmp_path / "results.npz")


@pytest.mark.parametrize("key", ["../1", "a/../../1", "/etc/1", "..\\1", "C:\\1", "C:/1"])
def test_keys_that_lead_elsewhere_are_refused(results, tmp_path, key):
    replace(results, image_keys=["ä/1", key]).save(tmp_path / "results.npz")
    with pytest.raises(ValueError, match="leads elsewhere"):
        RunResults.load(tmp_path / "results.npz")


def test_odd_keys_are_keys(results, tmp_path):
    replace(results, image_keys=["a:b/..1", "c..d"]).save(tmp_path / "results.npz")
    assert RunResults.load(tmp_path / "results.npz").image_keys == ["a:b/..1", "c..d"]


def build_batch(class_id=None):
    index = torch.tensor(IMAGE_OF_REGION)
    labels = None if class_id is None else torch.tensor(class_id)
    return NcdBatch(
        image_path=["a.png", "b.png", "c.png"],
        image_size=torch.tensor([[1, 1], [2, 2], [3, 3]]),
        image=None,
        region_mask=None,
        region_image_index=index,
        region_box_xyxy=torch.zeros(5, 4),
        region_score=torch.zeros(5),
        region_area=torch.arange(5),
        class_id=labels,
        region_class_id=None if labels is None else labels[index],
        pred_class_id=torch.tensor([7, 8, 9]),
    )


def build_results(class_id, label_names):
    batch = build_batch(class_id)
    return RunResults(batch, ["a", "b", "c"], ["class_1"], "regions", np.zeros((5, 2), np.float32), label_names)


@pytest.mark.parametrize("indices", [[0, 1, 2], [2, 0], [1], []])
def test_regions_go_with_their_images(indices):
    batch = build_batch()
    chosen = select_images(batch, indices)
    assert chosen.image_path == [batch.image_path[index] for index in indices]
    assert chosen.pred_class_id.tolist() == [7 + index for index in indices]
    pairs = list(zip(chosen.region_image_index.tolist(), chosen.region_area.tolist(), strict=True))
    expected = [(place, area) for place, i in enumerate(indices) for area in range(5) if IMAGE_OF_REGION[area] == i]
    assert sorted(pairs) == sorted(expected)
    assert chosen.class_id is None
    assert batch.image_path == ["a.png", "b.png", "c.png"]


def test_labels_are_numbered_as_in_the_run():
    results = build_results([0, 1, -1], ["good", "dent"])
    batch, names = join_labels(results, build_batch([1, 0, -1]), ["crack", "dent"])
    assert names == ["good", "dent", "crack"]
    assert batch.class_id.tolist() == [0, 1, -1, 1, 2, -1]
    assert batch.region_class_id.tolist() == [0, -1, 1, -1, 0, 1, -1, 2, -1, 1]
    assert results.batch.class_id.tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("old", "old_names", "new", "new_names", "expected"),
    [
        (None, [], [0, 1, 1], ["good", "dent"], [-1, -1, -1, 0, 1, 1]),
        ([0, 1, 1], ["good", "dent"], None, [], [0, 1, 1, -1, -1, -1]),
    ],
)
def test_images_without_labels_are_not_scored(old, old_names, new, new_names, expected):
    batch, names = join_labels(build_results(old, old_names), build_batch(new), new_names)
    assert batch.class_id.tolist() == expected
    assert names == ["good", "dent"]


def test_without_labels_there_are_none():
    batch, names = join_labels(build_results(None, []), build_batch(), [])
    assert (batch.class_id, names, len(batch)) == (None, [], 6)


def test_keys_stay_apart():
    assert free_keys(["a", "b"], ["b", "b~2"]) == ["a", "b~3"]
    assert free_keys(["b", "b~2"], ["b"]) == ["b~3", "b~2"]
    assert free_keys([], ["a"]) == []
