# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import numpy as np
import pytest

from anomalib_ncd.deploy import Artefact, Detection, Rejection
from anomalib_ncd.deploy.encoders import RegionPredictions
from anomalib_ncd.deploy.image_files import ImageInput
from anomalib_ncd.deploy.stages import CutImage, classify_image, cut_image, views_of, whole_views_of
from anomalib_ncd.regions.crops import Region

MAP = np.zeros((32, 32), np.float32)


@pytest.fixture(scope="module")
def manifest(torch_artefact):
    loaded = Artefact.load(torch_artefact).manifest
    return replace(loaded, score_range=(0.0, 1.0), merging_temperature=10.0)


def build_cut(*areas, num_anomalies=1, **detection):
    mask = np.ones((4, 4), bool)
    regions = [Region((0, 0, 4, 4), np.zeros((4, 4, 3), np.uint8), mask, 0.5, area) for area in areas]
    image = ImageInput(np.zeros((32, 32, 3), np.uint8))
    return CutImage(image, Detection(MAP, **detection), num_anomalies, regions)


def predictions_of(*probabilities, nearest=0.9):
    rows = np.array(probabilities, dtype=np.float32)
    nearest = np.broadcast_to(np.asarray(nearest, np.float32), len(rows))
    return RegionPredictions(rows, np.zeros((len(rows), 5), np.float32), nearest)


def test_a_map_becomes_regions_with_views(manifest):
    pixels = np.full((64, 64, 3), 100, np.uint8)
    anomaly_map = MAP.copy()
    anomaly_map[8:20, 8:20] = 1
    cut = cut_image(ImageInput(pixels), Detection(anomaly_map), manifest)
    assert cut.num_anomalies == 1
    [region] = cut.regions
    # 12 px eroded by 6 leave 7, doubled 14, widened by the run's own padding of 0.2 to 16
    assert region.box_xyxy[2] - region.box_xyxy[0] == 16
    assert region.area == 14**2
    views, masks = views_of(cut.regions, 224)
    assert (views.shape, masks.shape) == ((1, 3, 224, 224), (1, 1, 224, 224))


def test_regions_of_an_image_share_its_whole_view():
    cuts = [build_cut(100, 400), build_cut(100)]
    cuts[1] = cuts[1]._replace(image=ImageInput(np.full((20, 30, 3), 7, np.uint8)))
    views = whole_views_of(cuts, 32)
    assert views.shape == (3, 3, 32, 32)
    assert np.array_equal(views[0], views[1])
    assert (views[2] == 7).all()


def test_regions_weigh_by_the_root_of_their_area(manifest):
    # roots 10 and 20 over 10: weights 1 : e
    result = classify_image(build_cut(100, 400), predictions_of([0, 1, 0, 0], [0, 0, 1, 0]), manifest)
    assert result.probabilities == pytest.approx([0, 1 / (1 + np.e), np.e / (1 + np.e), 0])
    assert (result.class_id, result.class_name) == (2, "bright")
    assert result.confidence == pytest.approx(np.e / (1 + np.e))
    assert [region.class_name for region in result.regions] == ["dark", "bright"]


def test_an_image_has_the_classes_of_regions_that_count(manifest):
    dark, bright, unsure = [0.1, 0.8, 0.1, 0], [0.1, 0.1, 0.8, 0], [0.2, 0.3, 0.1, 0.4]
    result = classify_image(build_cut(100, 400), predictions_of(dark, bright), manifest)
    assert (result.class_name, result.classes) == ("bright", ("bright", "dark"))
    cut = build_cut(100, 400, 400)
    cut.regions[0] = replace(cut.regions[0], score=0.34)  # below 0.7 of the highest
    assert classify_image(cut, predictions_of(dark, bright, bright), manifest).classes == ("bright",)
    assert classify_image(build_cut(0, 400), predictions_of(dark, bright), manifest).classes == ("bright",)
    # Slots of one name are one class; normal is named only as the class of the image.
    twins = classify_image(build_cut(400, 100), predictions_of(dark, unsure), manifest)
    assert twins.classes == ("dark",)
    normal = [0.9, 0.1, 0, 0]
    assert classify_image(build_cut(400, 100), predictions_of(dark, normal), manifest).classes == ("dark",)
    assert classify_image(build_cut(100, 400), predictions_of(dark, normal), manifest).classes == ("normal", "dark")


def test_slots_of_one_name_stand_together(manifest):
    result = classify_image(build_cut(9), predictions_of([0, 0.3, 0.4, 0.3]), manifest)
    assert (result.class_id, result.class_name) == (1, "dark")
    assert result.confidence == pytest.approx(0.6)
    assert result.regions[0].confidence == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("cut", "probabilities", "threshold", "reason"),
    [
        (build_cut(9), [0, 1, 0, 0], None, None),
        (build_cut(9), [1, 0, 0, 0], None, "class"),
        (build_cut(9, num_anomalies=0), [0, 1, 0, 0], None, "empty_mask"),
        (build_cut(9, is_anomalous=False), [0, 1, 0, 0], None, "detector"),
        (build_cut(9, is_anomalous=True), [0, 1, 0, 0], None, None),
        (build_cut(9, score=0.4), [0, 1, 0, 0], 0.5, "detector"),
        (build_cut(9, score=0.6), [0, 1, 0, 0], 0.5, None),
        (build_cut(9, score=0.6, is_anomalous=False), [0, 1, 0, 0], 0.5, None),
        (build_cut(9), [0, 1, 0, 0], 0.5, None),
    ],
)
def test_what_makes_an_image_normal(cut, probabilities, threshold, reason, manifest):
    result = classify_image(
        cut, predictions_of(probabilities), replace(manifest, image_threshold=threshold, rejection=None)
    )
    assert result.normal_reason == reason
    assert result.is_normal == (reason is not None)


@pytest.mark.parametrize(
    ("rejection", "nearest", "is_unknown"),
    [(None, -1, False), (Rejection(0.5, 0.02), 0.49, True), (Rejection(0.5, 0.02), 0.51, False)],
)
def test_a_region_is_unknown_below_the_threshold(rejection, nearest, is_unknown, manifest):
    found = predictions_of([0.3, 0.3, 0.4, 0], nearest=nearest)
    result = classify_image(build_cut(9), found, replace(manifest, rejection=rejection))
    assert result.is_unknown == result.regions[0].is_unknown == is_unknown


def test_an_image_is_unknown_where_most_of_its_weight_is(manifest):
    chosen, dark = replace(manifest, rejection=Rejection(0.5, 0.02)), [0, 1, 0, 0]
    large_is_far = classify_image(build_cut(400, 100), predictions_of(dark, dark, nearest=[0.4, 0.6]), chosen)
    small_is_far = classify_image(build_cut(400, 100), predictions_of(dark, dark, nearest=[0.6, 0.4]), chosen)
    assert (large_is_far.is_unknown, small_is_far.is_unknown) == (True, False)
    # What is unknown is not normal because its least bad class is.
    lone = classify_image(build_cut(9), predictions_of([0.4, 0.2, 0.2, 0.2], nearest=0.4), chosen)
    assert (lone.class_name, lone.is_unknown, lone.is_normal) == ("normal", True, False)


def test_the_score_is_the_peak_over_the_range(manifest):
    cut = build_cut(9)
    cut.detection.anomaly_map[3, 3] = 0.25
    assert classify_image(cut, predictions_of([1, 0, 0, 0]), manifest).score == pytest.approx(0.25)
    cut.detection.anomaly_map[3, 3] = 0
