# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import numpy as np
import pytest

from anomalib_ncd.deploy import Artefact, Rejection
from anomalib_ncd.deploy.stages import classify_image, views_of, whole_views_of
from anomalib_ncd.regions.crops import Region
from anomalib_ncd.regions.cutting import cut_regions

MAP = np.zeros((32, 32), np.float32)
IMAGE = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def manifest(torch_artefact):
    loaded = Artefact.load(torch_artefact).manifest
    return replace(loaded, score_range=(0.0, 1.0), merging_temperature=10.0)


def build_regions(*areas):
    mask = np.ones((4, 4), bool)
    return [Region((0, 0, 4, 4), 0.5, area, np.zeros((4, 4, 3), np.uint8), mask) for area in areas]


def outputs_of(*probabilities, nearest=0.9):
    rows = np.array(probabilities, dtype=np.float32)
    nearest = np.broadcast_to(np.asarray(nearest, np.float32), len(rows))
    features = np.zeros((len(rows), 5), np.float32)
    return {"class_probabilities": rows, "region_feature": features, "neighbour_similarity": nearest}


def test_a_map_becomes_regions_with_views(manifest):
    image = np.full((64, 64, 3), 100, np.uint8)
    anomaly_map = MAP.copy()
    anomaly_map[8:20, 8:20] = 1
    regions = cut_regions(image, anomaly_map, manifest.score_range, manifest.regions)[1]
    [region] = regions
    # 12 px eroded by 2, which is 6 on such a small map, leave 11, doubled 22, widened by the padding of 0.2 to 26
    assert region.box_xyxy[2] - region.box_xyxy[0] == 26
    assert region.area == 22**2
    views, masks = views_of(regions, 224)
    assert (views.shape, masks.shape) == ((1, 3, 224, 224), (1, 1, 224, 224))


def test_whole_images_are_viewed_once():
    views = whole_views_of([IMAGE, np.full((20, 30, 3), 7, np.uint8)], 32)
    assert views.shape == (2, 3, 32, 32)
    assert (views[1] == 7).all()


def test_regions_are_merged_as_the_manifest_says(manifest):
    # roots 10 and 20 over 10: weights 1 : e
    result = classify_image(IMAGE.shape[:2], build_regions(100, 400), outputs_of([0, 1, 0, 0], [0, 0, 1, 0]), manifest)
    assert result.probabilities == pytest.approx([0, 1 / (1 + np.e), np.e / (1 + np.e), 0])
    assert (result.class_id, result.class_name, result.classes) == (2, "bright", ("bright", "dark"))
    assert [region.class_name for region in result.regions] == ["dark", "bright"]
    assert [region.mask.shape for region in result.regions] == [(4, 4)] * 2
    assert [region.feature.shape for region in result.regions] == [(5,)] * 2
    slim = classify_image(IMAGE.shape[:2], build_regions(9), outputs_of([0, 1, 0, 0]), manifest, keep_masks=False)
    assert slim.regions[0].mask is slim.regions[0].feature is None


def test_normal_is_the_slot_of_the_manifest_whatever_its_name(manifest):
    renamed = replace(manifest, class_names=("good part", "dark", "normal", "dark"), rejection=None)
    assert classify_image(IMAGE.shape[:2], build_regions(9), outputs_of([1, 0, 0, 0]), renamed).is_normal
    assert not classify_image(IMAGE.shape[:2], build_regions(9), outputs_of([0, 0, 1, 0]), renamed).is_normal


def test_an_image_without_region_has_a_result(manifest):
    nothing = {name: array[:0] for name, array in outputs_of([1, 0, 0, 0]).items()}
    result = classify_image(IMAGE.shape[:2], [], nothing, manifest)
    assert (result.class_name, result.is_normal, result.regions) == ("normal", True, ())


def test_a_region_is_unknown_below_the_threshold(manifest):
    for rejection, nearest, is_unknown in (
        (None, -1, False),
        (Rejection(0.5, 0.02, (0.5,)), 0.49, True),
        (Rejection(0.5, 0.02, (0.5,)), 0.51, False),
    ):
        found = outputs_of([0.3, 0.3, 0.4, 0], nearest=nearest)
        result = classify_image(IMAGE.shape[:2], build_regions(9), found, replace(manifest, rejection=rejection))
        assert result.regions[0].to_dict()["neighbour_similarity"] == pytest.approx(nearest)
        assert result.is_unknown == result.regions[0].is_unknown == is_unknown
