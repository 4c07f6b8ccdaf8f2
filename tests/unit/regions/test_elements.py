# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the elements of anomaly maps."""

import logging

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomalib_ncd.regions.elements import cut_at_half_height, cut_elements, find_elements, label_elements
from anomalib_ncd.regions.settings import RegionSettings

EIGHT = np.ones((3, 3))


def test_an_image_below_the_floor_has_none() -> None:
    anomaly_map = np.full((8, 8), 0.2)
    anomaly_map[2, 2] = 0.5
    elements, threshold = find_elements(anomaly_map, (0, 1))
    assert (elements.any(), threshold) == (False, 0.5)


def test_weak_elements_count_beside_strong_ones_over_a_quiet_background() -> None:
    anomaly_map = np.zeros((16, 16))
    anomaly_map[2:5, 2:5], anomaly_map[10:12, 10:12], anomaly_map[2, 14] = 1.3, 0.3, 0.2
    elements, threshold = find_elements(anomaly_map, (0, 1))
    assert threshold == 0.25
    assert np.array_equal(elements, np.select([anomaly_map == 1.3, anomaly_map == 0.3], [1, 2]))


@pytest.mark.parametrize(("noise", "count"), [(0.02, 2), (0.4, 1)])
def test_over_a_restless_background_only_what_comes_near_the_peak_counts(noise: float, count: int) -> None:
    anomaly_map = np.random.default_rng(0).uniform(0, noise, (64, 64))
    anomaly_map[8:14, 8:14], anomaly_map[40:46, 40:46] = 1.3, 0.45
    assert find_elements(anomaly_map, (0, 1))[0].max() == count
    anomaly_map[40:46, 40:46] = 1.2
    assert find_elements(anomaly_map, (0, 1))[0].max() == 2


def test_what_splits_in_peaks_is_one_element() -> None:
    anomaly_map = np.zeros((32, 32))
    anomaly_map[8:12, 4:28], anomaly_map[8:12, 4:8], anomaly_map[8:12, 24:28] = 0.4, 1, 0.9
    elements, _ = find_elements(anomaly_map, (0, 1))
    assert np.array_equal(elements, anomaly_map > 0.5)


def test_strong_elements_are_cut_at_half_their_height() -> None:
    rows, columns = np.indices((65, 65)) - 32
    bell = 0.9 * np.exp(-(rows**2 + columns**2) / (2 * 5**2)) + 0.1
    elements, _ = find_elements(bell, (0.1, 0.3))
    radius = 5 * np.sqrt(2 * np.log(2))
    assert elements.sum() == pytest.approx(np.pi * radius**2, rel=0.03)


@pytest.mark.parametrize("value", [0.9, 5.0])
def test_a_map_that_is_high_everywhere_is_one_element(value: float) -> None:
    elements, _ = find_elements(np.full((6, 6), value), (0, 1))
    assert (elements == 1).all()


@pytest.mark.parametrize("level", [0.0, 0.4])
def test_the_level_of_most_of_the_map_does_not_stand_out(level: float) -> None:
    anomaly_map = np.full((9, 9), level)
    anomaly_map[2, 3], anomaly_map[5, 5] = 1, 0.9
    assert np.flatnonzero(find_elements(anomaly_map, (0, 1))[0]).tolist() == [21, 50]
    assert np.flatnonzero(find_elements(anomaly_map - level, (0, 0))[0]).tolist() == [21, 50]


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_the_border_of_the_map_is_like_its_inside(corner: tuple[int, int]) -> None:
    anomaly_map = np.zeros((16, 16))
    anomaly_map[corner] = 1
    assert find_elements(anomaly_map, (0, 1))[0].sum() == 1


@pytest.mark.parametrize("size", [14, 28, 64, 256, 512])
def test_maps_of_other_sizes_have_the_same_elements(size: int) -> None:
    y, x = (np.indices((size, size)) + 0.5) / size
    spots = [(0.2, 0.3, 1.2), (0.7, 0.2, 1.1), (0.6, 0.8, 1.0)]
    anomaly_map = sum(h * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 0.06**2)) for u, v, h in spots)
    elements, _ = find_elements(anomaly_map, (0, 1))
    assert elements.max() == 3
    radius = 0.06 * np.sqrt(2 * np.log(2))
    for number, (u, v, _) in enumerate(spots, 1):
        rows, columns = np.nonzero(elements == number)
        assert (columns.mean() + 0.5) / size == pytest.approx(u, abs=0.5 / size)
        assert (rows.mean() + 0.5) / size == pytest.approx(v, abs=0.5 / size)
        assert len(rows) / size**2 == pytest.approx(np.pi * radius**2, rel=0.12 if size > 14 else 0.5)


@given(hnp.arrays(np.float64, (6, 7), elements=st.integers(0, 32).map(lambda value: value / 16)))
def test_the_peak_of_an_image_above_the_floor_is_always_marked(anomaly_map: np.ndarray) -> None:
    elements, threshold = find_elements(anomaly_map, (0.25, 1.25))
    assert elements.any() == (anomaly_map.max() > 0.75)
    assert not elements.any() or elements.ravel()[anomaly_map.argmax()] > 0
    assert (anomaly_map[elements > 0] >= threshold).all()


@given(hnp.arrays(np.uint8, (5, 6), elements=st.integers(0, 255)))
def test_bytes_and_floats_give_the_same(anomaly_map: np.ndarray) -> None:
    result, other = (find_elements(array, (60, 160)) for array in (anomaly_map, anomaly_map.astype(np.float64)))
    np.testing.assert_array_equal(result[0], other[0])
    assert result[1] == other[1]


@pytest.mark.parametrize("score_range", [(1, 0), (0, np.inf)])
def test_a_bad_range_is_refused(score_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="score_range"):
        find_elements(np.zeros((2, 2)), score_range)


@given(
    hnp.arrays(np.int64, (6, 6), elements=st.integers(0, 9)), hnp.arrays(np.int32, (6, 6), elements=st.integers(0, 3))
)
def test_half_height_is_that_of_each_element(anomaly_map: np.ndarray, elements: np.ndarray) -> None:
    expected = np.zeros_like(elements)
    for number in set(elements.ravel().tolist()) - {0}:
        own = elements == number
        expected[own & (anomaly_map >= (anomaly_map[own].max() + 1) / 2)] = number
    np.testing.assert_array_equal(cut_at_half_height(elements, anomaly_map, 1), expected)


def _squares(*gaps: int, side: int = 4, size: int = 100) -> np.ndarray:
    """Squares in a row with gaps between them."""
    mask = np.zeros((size, size), dtype=bool)
    left = 2
    for gap in (*gaps, 0):
        mask[10 : 10 + side, left : left + side] = True
        left += side + gap
    return mask


@pytest.mark.parametrize(("gap", "count"), [(1, 1), (2, 1), (3, 2)])
def test_near_components_are_one_element(gap: int, count: int) -> None:
    mask = _squares(gap)
    elements = label_elements(mask, mask.astype(float), merge_distance_ratio=0.02)
    assert elements.max() == count
    assert np.array_equal(elements > 0, mask)


def test_small_components_must_be_nearer_than_they_are_long() -> None:
    mask = _squares(3, 3, 3, side=2)
    assert label_elements(mask, mask.astype(float), merge_distance_ratio=0.1).max() == 4


def test_the_longer_side_counts() -> None:
    mask = _squares(4)[:20]
    assert label_elements(mask, mask.astype(float), merge_distance_ratio=0.04).max() == 1


def test_elements_are_numbered_by_their_peaks() -> None:
    mask = _squares(10, 10)
    elements = label_elements(mask, np.where(mask, np.linspace(0, 1, 100)[None], 2))
    assert [int(elements[11, column]) for column in (3, 17, 31)] == [3, 2, 1]


def test_too_many_elements_are_cut_off_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((90, 90), dtype=bool)
    mask[::9, ::9] = True
    anomaly_map = mask * np.arange(90)[None]
    with caplog.at_level(logging.WARNING):
        elements = label_elements(mask, anomaly_map, max_elements=10)
    assert "100 elements in one map; the 10 with the highest peaks are kept." in caplog.text
    assert np.unique(elements).tolist() == list(range(11))
    assert np.array_equal(np.unique(np.nonzero(elements)[1]), [81])


def test_an_empty_mask_has_no_element() -> None:
    elements = label_elements(np.zeros((5, 5), dtype=bool), np.zeros((5, 5)))
    assert (elements.dtype, elements.shape, elements.max()) == (np.int32, (5, 5), 0)


def test_without_merging_elements_are_components() -> None:
    mask = np.random.default_rng(0).random((40, 40)) < 0.2
    elements = label_elements(mask, mask.astype(float), merge_distance_ratio=0, max_elements=1000)
    assert elements.max() == cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1


@pytest.mark.parametrize(
    ("mask", "options", "match"),
    [
        (np.zeros((2, 3), dtype=bool), {}, "one shape"),
        (np.zeros((2, 2), dtype=bool), {"merge_distance_ratio": -1}, "merge_distance_ratio"),
        (np.zeros((2, 2), dtype=bool), {"max_elements": 0}, "max_elements"),
    ],
)
def test_bad_arguments_are_refused(mask: np.ndarray, options: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        label_elements(mask, np.zeros((2, 2)), **options)


def _image(height: int, width: int) -> np.ndarray:
    """Pixels hold their column, their row and 0."""
    rows, columns = np.indices((height, width))
    return np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_crops_may_overlap_but_masks_do_not() -> None:
    elements = np.zeros((100, 100), dtype=np.int32)
    elements[40:50, 40:50], elements[40:45, 54:59] = 2, 1
    anomaly_map = np.where(elements == 1, 1.5, elements / 4)
    first, second = cut_elements(_image(100, 100), elements, anomaly_map, (0, 1), RegionSettings(min_size_ratio=0.1))
    assert (first.box_xyxy, second.box_xyxy) == ((35.0, 35.0, 55.0, 55.0), (46.0, 32.0, 66.0, 52.0))
    assert (first.area, second.area) == (100, 25)
    assert (first.score, second.score) == (0.5, 1.0)
    assert first.mask.sum() == 100
    assert first.mask[5:15, 5:15].all()
    assert second.mask.sum() == 25
    assert second.mask[8:13, 8:13].all()
    assert second.image[0, 0].tolist() == [46, 32, 0]


def test_maps_are_resized_to_the_image() -> None:
    elements = np.zeros((10, 10), dtype=np.int32)
    elements[2, 3] = 1
    [region] = cut_elements(
        _image(50, 100), elements, elements, (0, 1), RegionSettings(padding_ratio=0, min_size_ratio=0)
    )
    assert region.area == 50
    assert region.box_xyxy == (30.0, 7.0, 40.0, 17.0)


def test_no_element_is_lost_in_a_small_image() -> None:
    elements = np.zeros((64, 64), dtype=np.int32)
    elements[3, 5], elements[33, 62] = 1, 2
    regions = cut_elements(_image(8, 8), elements, elements, (0, 4))
    assert [region.area for region in regions] == [1, 1]
    assert [region.score for region in regions] == [0.25, 0.5]


def test_a_box_longer_than_the_image_has_the_mean_colour_of_what_lies_beside_the_mask_outside() -> None:
    image, elements = _image(20, 60), np.zeros((20, 60), dtype=np.int32)
    elements[5:15, :30] = 1
    [region] = cut_elements(image, elements, elements, (0, 1))
    assert region.image.shape == (32, 32, 3)
    assert region.mask.sum() == 300
    assert (region.image[:20] == image[:, :32]).all()
    beside = image[:, :32][elements[:, :32] == 0]
    assert (region.image[20:] == np.round(beside.mean(axis=0))).all()


def test_of_a_mask_that_fills_the_image_all_of_the_image_gives_the_colour_outside() -> None:
    elements = np.ones((20, 60), dtype=np.int32)
    [region] = cut_elements(_image(20, 60), elements, elements, (0, 1))
    assert region.image.shape == (60, 60, 3)
    assert region.mask.sum() == 1200
    assert (region.image[20:] == (30, 10, 0)).all()  # 29.5 and 9.5 on the mean


def test_no_element_gives_no_region() -> None:
    assert cut_elements(_image(8, 8), np.zeros((4, 4), dtype=np.int32), np.zeros((4, 4)), (0, 1)) == []


def test_a_range_without_width_scores_what_lies_above_it() -> None:
    elements = np.ones((4, 4), dtype=np.int32)
    [region] = cut_elements(_image(4, 4), elements, elements, (0, 0))
    assert region.score == 1


def test_bad_arguments_are_refused_element_regions() -> None:
    elements = np.zeros((4, 4), dtype=np.int32)
    with pytest.raises(ValueError, match="`image`"):
        cut_elements(np.zeros((4, 4), dtype=np.uint8), elements, elements, (0, 1))
    with pytest.raises(ValueError, match="one shape"):
        cut_elements(_image(4, 4), elements, np.zeros((5, 4)), (0, 1))


def test_of_elements_on_one_pixel_of_a_small_image_one_is_left() -> None:
    elements = np.zeros((64, 64), dtype=np.int32)
    elements[3, 5], elements[5, 3], elements[33, 62] = 1, 2, 3
    regions = cut_elements(_image(8, 8), elements, elements, (0, 4))
    assert [(region.area, region.score) for region in regions] == [(1, 0.5), (1, 0.75)]


def test_example_of_label_elements():
    mask = np.array([[1, 0, 1, 0, 0, 0, 1]], dtype=bool)
    np.testing.assert_array_equal(
        label_elements(mask, np.array([[3, 0, 1, 0, 0, 0, 9]]), merge_distance_ratio=0.15),
        np.array([[2, 0, 2, 0, 0, 0, 1]], dtype=np.int32),
    )


def test_example_of_cut_elements():
    elements = np.zeros((32, 32), dtype=np.int32)
    elements[8:12, 8:12], elements[8:12, 14:16] = 1, 2
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    assert [(region.box_xyxy, region.area) for region in cut_elements(image, elements, elements, (0, 2))] == [
        ((14.0, 14.0, 26.0, 26.0), 64),
        ((24.0, 14.0, 36.0, 26.0), 32),
    ]


def test_example_of_find_elements():
    elements, threshold = find_elements(np.array([[0, 9, 5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0]]), (0, 4))
    np.testing.assert_array_equal(elements, [[0, 1, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]])
    assert threshold == 1.0
