# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv

import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.results.predictions import (
    ImagePrediction,
    RegionPrediction,
    class_sets,
    image_predictions,
    region_predictions,
    write_csv,
)

NAMES = ["normal", "class_1"]


@pytest.fixture
def batch():
    batch = NcdBatch(
        image_path=["a/0.png", "b, c/1.png"],
        image_size=torch.tensor([[60, 80], [60, 80]]),
        image=None,
        region_mask=None,
        region_image_index=torch.tensor([0, 0, 1]),
        region_box_xyxy=torch.tensor([[1.0, 2, 3, 4], [-2, 0, 10.5, 12], [0, 0, 80, 60]]),
        region_score=torch.tensor([0.25, 0.5, 0.1]),
        region_area=torch.tensor([100, 50, 0]),
    )
    by_region = torch.tensor([[0.2, 0.8], [0.75, 0.25], [0.9, 0.1]])
    return batch.with_predictions(by_region, torch.tensor([[0.4, 0.6], [0.9, 0.1]]))


def test_every_image_is_a_row(batch):
    rows = image_predictions([batch, batch], NAMES)
    assert rows[:2] == [
        ImagePrediction("a/0.png", "class_1", 0.6, 2, classes="class_1"),
        ImagePrediction("b, c/1.png", "normal", 0.9, 1, classes="normal"),
    ]
    assert rows[2:] == rows[:2]
    batch.update(unknown=torch.tensor([False, True]), region_unknown=torch.tensor([True, False, True]))
    assert [row.unknown for row in image_predictions([batch], NAMES)] == [False, True]
    assert [row.unknown for row in region_predictions([batch], NAMES)] == [True, False, True]


def test_an_image_of_two_kinds_lists_both(batch):
    # Its second region is the surest by score, and of the class that goes by the first name here.
    [row, other] = image_predictions([batch], ["dent", "hole"])
    assert (row.class_name, row.classes) == ("hole", "hole;dent")
    assert other.classes == "dent"
    assert class_sets(batch, ["dent", "dent"]) == [[0], [0]]
    assert class_sets(batch, ["false alarm", "hole"], normal_name="false alarm") == [[1], [0]]
    batch.update(region_score=torch.tensor([0.9, 0.4, 0.1]))
    assert class_sets(batch, ["dent", "hole"]) == [[1], [0]]  # less than 0.7 of the highest score doesn't count


def test_every_region_is_a_row(batch):
    rows = region_predictions([batch], NAMES)
    assert rows[1] == RegionPrediction("a/0.png", -2, 0, 10.5, 12, 50, 0.5, "normal", 0.75)
    assert [row.image for row in rows] == ["a/0.png", "a/0.png", "b, c/1.png"]
    assert [row.class_name for row in rows] == ["class_1", "normal", "normal"]


@pytest.mark.parametrize("rows_of", [image_predictions, region_predictions])
def test_batches_without_predictions_are_refused(batch, rows_of):
    batch.update(pred_class_id=None, region_pred_class_id=None)
    with pytest.raises(ValueError, match=r"no predictions.*Engine\.predict"):
        rows_of([batch], NAMES)


def test_no_batches_give_no_rows():
    assert image_predictions([], NAMES) == []
    assert region_predictions([], NAMES) == []


def test_image_csv(batch, tmp_path):
    file = tmp_path / "new" / "predictions.csv"
    write_csv(file, image_predictions([batch], NAMES), ImagePrediction)
    assert file.read_text().splitlines()[0] == "image,class,confidence,num_regions,unknown,classes"
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[1] == {
        "image": "b, c/1.png",
        "class": "normal",
        "confidence": "0.9",
        "num_regions": "1",
        "unknown": "False",
        "classes": "normal",
    }


def test_region_csv(batch, tmp_path):
    file = tmp_path / "regions.csv"
    write_csv(file, region_predictions([batch], NAMES), RegionPrediction)
    lines = file.read_text().splitlines()
    assert lines[0] == "image,left,top,right,bottom,area,score,class,confidence,unknown"
    assert lines[2] == "a/0.png,-2.0,0.0,10.5,12.0,50,0.5,normal,0.75,False"


def test_a_csv_without_rows_has_a_header(tmp_path):
    write_csv(tmp_path / "p.csv", [], ImagePrediction)
    assert (tmp_path / "p.csv").read_text() == "image,class,confidence,num_regions,unknown,classes\n"


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "p.csv"
    write_csv(file, [ImagePrediction("a", "normal", 1.0, 1, "normal")], ImagePrediction)
    before = file.read_text()
    with pytest.raises(TypeError):
        write_csv(file, [ImagePrediction("b", "normal", 1.0, 1, "normal"), None], ImagePrediction)
    assert file.read_text() == before
    write_csv(file, [], ImagePrediction)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
