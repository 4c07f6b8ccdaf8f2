# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_ncd.regions.crops import crop, extract_regions, region_boxes, region_scores
from anomalib_ncd.regions.mebin import BinarizedMap, normalize_anomaly_map
from anomalib_ncd.regions.settings import RegionSettings


def coordinate_image(height, width):
    """An image that says where each pixel comes from; no pixel is black."""
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)


def mask_with(size_hw, *boxes_xyxy):
    mask = np.zeros(size_hw, dtype=bool)
    for left, top, right, bottom in boxes_xyxy:
        mask[top:bottom, left:right] = True
    return mask


@pytest.fixture(scope="module")
def golden_cases(golden_maps):
    golden = golden_maps.mebin[6]
    masks = np.unpackbits(golden["masks"], axis=-1).astype(bool)
    binarized = map(BinarizedMap, masks, golden["thresholds"].astype(float), golden["est_anomaly_num"].tolist())
    return list(zip(golden_maps.maps, binarized, golden_maps.crops, strict=True)), golden_maps.score_range


def test_equals_golden(golden_cases):
    cases, score_range = golden_cases
    assert len(cases) >= 17
    for anomaly_map, binarized, expected in cases:
        image = np.zeros((*expected["image_hw"], 3), dtype=np.uint8)
        regions = extract_regions(image, anomaly_map, binarized, score_range)
        assert [list(region.box_xyxy) for region in regions] == expected["boxes"]
        assert [region.area for region in regions] == expected["mask_area"]
        np.testing.assert_allclose([region.score for region in regions], expected["scores"], atol=1e-5)


def test_empty_mask_is_the_whole_image():
    np.testing.assert_array_equal(region_boxes(np.zeros((30, 40), dtype=bool), 0), [[0, 0, 40, 30]])


def test_largest_first_and_one_more_than_estimated():
    mask = mask_with((400, 400), (10, 10, 50, 50), (200, 10, 300, 110), (10, 300, 90, 380))
    expected = [[195, 5, 305, 115], [6, 296, 94, 384], [0, 0, 80, 80]]
    np.testing.assert_array_equal(region_boxes(mask, 3), expected)
    np.testing.assert_array_equal(region_boxes(mask, 2), expected)
    np.testing.assert_array_equal(region_boxes(mask, 1), expected[:2])
    np.testing.assert_array_equal(region_boxes(mask, 0), expected[:1])


def test_options_reach_the_boxes():
    mask = mask_with((400, 400), (100, 100, 140, 140))
    np.testing.assert_array_equal(
        region_boxes(mask, 1, RegionSettings(padding_ratio=0.5, min_size_ratio=0)), [[90, 90, 150, 150]]
    )
    np.testing.assert_array_equal(region_boxes(mask, 1, RegionSettings(min_size_ratio=0.25)), [[20, 20, 220, 220]])
    mask |= mask_with((400, 400), (210, 100, 250, 140))
    assert len(region_boxes(mask, 2, RegionSettings(min_size_ratio=0))) == 2
    assert len(region_boxes(mask, 2, RegionSettings(min_size_ratio=0, merge_distance_ratio=0.2))) == 1


def test_holes_make_no_boxes():
    mask = mask_with((100, 100), (20, 20, 80, 80))
    mask[40:60, 40:60] = False
    mask[48:52, 48:52] = True
    assert len(region_boxes(mask, 5)) == 1


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2, 3, 5, 7), (2, 3, 5, 7)),
        ((0.5, 1.5, 2.5, 3.5), (0, 2, 2, 4)),
        ((-2, -1, 3, 2), (-2, -1, 3, 2)),
        ((8, 6, 14, 12), (8, 6, 14, 12)),
        ((-20, -20, -10, -12), (-20, -20, -10, -12)),
        ((50, 50, 53, 54), (50, 50, 53, 54)),
        ((3, 3, 3, 3), (3, 3, 3, 3)),
    ],
)
def test_crop_of_coordinate_image(box, expected):
    image = coordinate_image(9, 11)
    cut = crop(image, box)
    left, top, right, bottom = expected
    assert cut.shape == (bottom - top, right - left, 3)
    for row in range(bottom - top):
        for column in range(right - left):
            y, x = row + top, column + left
            inside = 0 <= y < 9 and 0 <= x < 11
            assert cut[row, column].tolist() == ([y + 1, x + 1, 7] if inside else [0, 0, 0])


@settings(deadline=None, max_examples=60, derandomize=True)
@given(left=st.integers(-40, 40), top=st.integers(-40, 40), width=st.integers(2, 60), height=st.integers(2, 60))
def test_crop_equals_pillow(left, top, width, height):
    image = coordinate_image(17, 23)
    box = (left / 2, top / 2, (left + width) / 2, (top + height) / 2)
    np.testing.assert_array_equal(crop(image, box), np.asarray(Image.fromarray(image).crop(box)))


def test_crop_copies():
    image = coordinate_image(4, 4)
    crop(image, (0, 0, 4, 4))[:] = 0
    assert image.all()


@pytest.mark.parametrize("size_hw", [(32, 32), (75, 41), (20, 50), (11, 7), (32, 64)])
def test_scores_equal_pillow(size_hw):
    rng = np.random.default_rng(0)
    anomaly_map = cv2.GaussianBlur(rng.random((32, 32)), (0, 0), 1.0)
    score_range = (float(np.median(anomaly_map)), float(anomaly_map.max()))
    height, width = size_hw
    normalised = normalize_anomaly_map(anomaly_map, score_range).astype(np.float32)
    resized = np.asarray(Image.fromarray(normalised).resize((width, height), Image.Resampling.BICUBIC))
    corners = rng.integers(-3, [width - 3, height - 3], (30, 2))
    boxes = np.hstack([corners, corners + rng.integers(4, 9, (30, 1))]).astype(float)
    expected = [max(0, crop(resized, box).max()) / 255 for box in boxes]
    scores = region_scores(anomaly_map, score_range, boxes, size_hw)
    np.testing.assert_allclose(scores, np.minimum(expected, 1), atol=1e-5)
    assert scores.dtype == np.float64


def test_scores_of_no_boxes_and_of_boxes_outside():
    anomaly_map = np.ones((8, 8))
    assert region_scores(anomaly_map, (0, 1), np.zeros((0, 4)), (8, 8)).shape == (0,)
    np.testing.assert_array_equal(region_scores(anomaly_map, (0, 1), np.array([[20, 20, 30, 30]]), (8, 8)), [0])


def test_regions_hold_image_mask_score_and_area():
    image = coordinate_image(60, 80)
    anomaly_map = np.zeros((30, 40), dtype=np.uint8)
    anomaly_map[5:10, 5:10] = 100
    anomaly_map[20:24, 30:36] = 200
    binarized = BinarizedMap(anomaly_map > 50, 50.0, 2)
    large, small = extract_regions(image, anomaly_map, binarized, (0, 200))
    assert large.box_xyxy == (58.0, 36.0, 74.0, 52.0)
    assert small.box_xyxy == (7.0, 7.0, 23.0, 23.0)
    assert (large.area, small.area) == (8 * 12, 10 * 10)
    assert large.score == pytest.approx(1)
    assert small.score == pytest.approx(0.5, abs=0.08)
    for region in (large, small):
        left, top, right, bottom = (int(edge) for edge in region.box_xyxy)
        np.testing.assert_array_equal(region.image, image[top:bottom, left:right])
        assert region.mask.dtype == bool
        assert region.mask.sum() == region.area


def test_outside_of_the_image_is_black():
    anomaly_map = np.zeros((20, 60))
    anomaly_map[5:15, :30] = 1
    [region] = extract_regions(coordinate_image(20, 60), anomaly_map, BinarizedMap(anomaly_map > 0, 0.5, 1), (0, 1))
    assert region.image[:20].all()
    assert region.image.shape[0] > 20
    assert not region.image[20:].any()


def test_normal_image_is_one_region():
    image = coordinate_image(20, 30)
    binarized = BinarizedMap(np.zeros((8, 8), dtype=bool), 1.0, 0)
    [region] = extract_regions(image, np.zeros((8, 8)), binarized, (0, 1))
    assert region.box_xyxy == (0.0, 0.0, 30.0, 20.0)
    np.testing.assert_array_equal(region.image, image)
    assert (region.score, region.area, region.mask.shape) == (0.0, 0, (20, 30))


def test_bad_inputs_raise():
    image, anomaly_map = coordinate_image(8, 8), np.zeros((4, 4))
    binarized = BinarizedMap(np.zeros((4, 4), dtype=bool), 1.0, 0)
    with pytest.raises(ValueError, match=r"`image` must have shape \(H, W, 3\) and be uint8"):
        extract_regions(image[..., 0], anomaly_map, binarized, (0, 1))
    with pytest.raises(ValueError, match=r"`image` must .* be uint8, got \(8, 8, 3\), float64"):
        extract_regions(image / 255, anomaly_map, binarized, (0, 1))
    with pytest.raises(ValueError, match=r"`mask` must have shape \(H, W\)"):
        region_boxes(np.zeros((1, 4, 4)), 1)
    with pytest.raises(ValueError, match="`num_components` must be 0 or more"):
        region_boxes(np.zeros((4, 4)), -1)
    with pytest.raises(ValueError, match="`padding_ratio` must be"):
        region_boxes(np.zeros((4, 4)), 1, RegionSettings(padding_ratio=-0.1))
    with pytest.raises(ValueError, match=r"`array` must have shape"):
        crop(np.zeros(4), (0, 0, 1, 1))
    with pytest.raises(ValueError, match="`box_xyxy` must be left, top, right, bottom"):
        crop(image, (4, 0, 1, 1))
    with pytest.raises(ValueError, match="`size_hw` must be height and width"):
        region_scores(anomaly_map, (0, 1), np.zeros((1, 4)), (0, 8))


def test_of_too_many_large_regions_the_first_are_kept(monkeypatch, caplog):
    monkeypatch.setattr("anomalib_ncd.regions.crops.MAX_CROP_PIXELS", 1000)
    anomaly_map = np.zeros((100, 100))
    anomaly_map[10:14, 10:14] = anomaly_map[10:14, 60:64] = anomaly_map[60:64, 10:14] = 1
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    regions = extract_regions(image, anomaly_map, BinarizedMap(anomaly_map > 0, 0.5, 3), (0, 1))
    assert [region.image.shape for region in regions] == [(20, 20, 3)] * 2
    assert "leads to 3 large regions; the first 2 are kept" in caplog.text
    monkeypatch.setattr("anomalib_ncd.regions.crops.MAX_CROP_PIXELS", 10)
    assert len(extract_regions(image, anomaly_map, BinarizedMap(anomaly_map > 0, 0.5, 3), (0, 1))) == 1


def test_example_of_region_boxes():
    mask = np.zeros((100, 200), dtype=bool)
    mask[40:60, 30:90] = True
    np.testing.assert_array_equal(region_boxes(mask, num_components=1), np.array([[27.0, 17.0, 93.0, 83.0]]))


def test_example_of_crop():
    np.testing.assert_array_equal(crop(np.array([[1, 2], [3, 4]]), (1, 0, 3, 2)), np.array([[2, 0], [4, 0]]))


def test_example_of_extract_regions():
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    anomaly_map = np.zeros((32, 32))
    anomaly_map[8:12, 8:12] = 1
    binarized = BinarizedMap(anomaly_map > 0.5, 0.5, 1)
    [region] = extract_regions(image, anomaly_map, binarized, (0, 1))
    assert (region.box_xyxy, region.image.shape, region.area) == ((14.0, 14.0, 26.0, 26.0), (12, 12, 3), 64)
