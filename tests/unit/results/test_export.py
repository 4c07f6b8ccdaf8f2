# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from anomalib_ncd import NcdDataModule
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.results.export import export_results, polygons_of, shapes_of
from anomalib_ncd.runs.files import gather_results

SLOTS = ["normal", "class_1", "class_2"]
NAMES = ["normal", "line / dark", "square"]


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """Results with the true classes, the table of their regions, and the masks that they were drawn with."""
    output = tmp_path_factory.mktemp("run")
    data = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, labels="folders", work_dir=output)
    batch = next(iter(data.test_dataloader())).without_pixels()
    regions = torch.full((len(batch.region_class_id), 3), 0.05)
    regions[torch.arange(len(regions)), batch.region_class_id] = 0.9
    merging = RegionMerging(tuple(SLOTS), 0)
    batch.with_predictions(regions, merging)
    results = gather_results([batch], data, merging, output)
    return results, data.region_table()


@pytest.fixture(params=["coco", "yolo", "csv", "folders"])
def kind(request):
    return request.param


def whole_masks(run):
    """Mask of each region that is no false alarm, in its image."""
    results, table = run
    masks = []
    for row, (image, box) in enumerate(zip(table.image_of, results.batch.region_box_xyxy.tolist(), strict=True)):
        if results.image_keys[image].startswith("good") or not table.rows[row].area:
            continue
        left, top = round(box[0]), round(box[1])
        mask = table.load(row)[1]
        whole = np.zeros(results.batch.image_size[image].tolist(), bool)
        for y, x in np.argwhere(mask):
            whole[y + top, x + left] = True
        masks.append((image, whole))
    return masks


def test_an_independent_reader_finds_masks_boxes_and_classes(run, tmp_path):
    coco_module = pytest.importorskip("pycocotools.coco", reason="needs the extra [test]")
    export_results(run[0], NAMES, run[1], tmp_path, "coco")
    coco = coco_module.COCO(str(tmp_path / "annotations.json"))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == NAMES[1:]
    annotations = coco.loadAnns(coco.getAnnIds())
    expected = whole_masks(run)
    assert len(annotations) == len(expected) > 10
    for annotation, (image, mask) in zip(annotations, expected, strict=True):
        read = coco.annToMask(annotation).astype(bool)
        assert (read == mask).mean() > 0.999
        left, top, width, height = annotation["bbox"]
        assert mask[top : top + height, left : left + width].sum() == mask.sum() == annotation["area"]
        key = run[0].image_keys[image]
        assert coco.loadImgs(annotation["image_id"])[0]["file_name"] == f"{key}.png"
        name = coco.loadCats(annotation["category_id"])[0]["name"]
        assert name.startswith(key.split("/")[0])
        assert annotation["score"] == pytest.approx(0.9)
    assert len(coco.getImgIds()) == len(run[0].image_keys)


def test_yolo_polygons_are_those_of_the_masks(run, tmp_path):
    export_results(run[0], NAMES, run[1], tmp_path, "yolo")
    settings = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert settings["names"] == dict(enumerate(NAMES[1:]))
    for image, mask in whole_masks(run):
        text = (tmp_path / "labels" / f"{run[0].image_keys[image]}.txt").read_text()
        drawn = np.zeros(mask.shape, np.uint8)
        for line in text.splitlines():
            points = np.array(line.split()[1:], float).reshape(-1, 2) * mask.shape[::-1]
            cv2.fillPoly(drawn, [np.floor(points).astype(np.int32)], 1)
        assert (drawn.astype(bool) == mask).mean() > 0.995
    assert (tmp_path / "labels" / "good" / "000.txt").read_text() == ""


def test_tables_and_folders(run, tmp_path):
    export_results(run[0], NAMES, run[1], tmp_path / "csv", "csv")
    with (tmp_path / "csv" / "regions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["class"] for row in rows} == set(NAMES[1:])
    assert all(json.loads(row["polygons"]) for row in rows)
    export_results(run[0], NAMES, run[1], tmp_path / "folders", "folders", copy=True)
    found = sorted(path.relative_to(tmp_path / "folders").parts for path in (tmp_path / "folders").rglob("*.png"))
    assert {parts[0] for parts in found} == {"line __ dark", "normal", "square"}
    assert len(found) == len(run[0].image_keys)


def test_images_are_linked_or_copied(run, tmp_path):
    for copy in (False, True):
        export_results(run[0], NAMES, run[1], tmp_path / str(copy), "coco", copy=copy)
        image = tmp_path / str(copy) / "images" / "line" / "000.png"
        assert image.is_symlink() != copy
        assert image.read_bytes() == Path(run[0].batch.image_path[run[0].image_keys.index("line/000")]).read_bytes()


def test_unknown_regions_are_called_so(run, tmp_path):
    results, table = run
    unknown = torch.zeros(len(results.batch.region_area), dtype=torch.bool)
    unknown[-1] = True
    marked = replace(results, batch=replace(results.batch, region_unknown=unknown))
    assert shapes_of(marked, NAMES, table)[-1].class_name == "unknown"
    export_results(marked, NAMES, table, tmp_path, "coco")
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert content["categories"][-1]["name"] == "unknown"


def test_polygons_hold_the_middles_of_pixels():
    mask = np.zeros((6, 7), bool)
    mask[1:4, 2:5] = mask[5, 6] = True
    polygons = polygons_of(mask)
    assert len(polygons) == 2
    for y, x in np.argwhere(np.ones_like(mask)):
        middle = (x + 0.5, y + 0.5)
        parts = (np.array(polygon, np.float32).reshape(-1, 1, 2) for polygon in polygons)
        assert (max(cv2.pointPolygonTest(part, middle, measureDist=False) for part in parts) > 0) == mask[y, x]


def test_other_formats_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="must be one of coco, yolo, csv, folders"):
        export_results(run[0], NAMES, run[1], tmp_path, "voc")


def test_example_of_polygons_of():
    assert polygons_of(np.array([[False, True]])) == [[1.25, 0.25, 1.25, 0.75, 1.75, 0.75, 1.75, 0.25]]
