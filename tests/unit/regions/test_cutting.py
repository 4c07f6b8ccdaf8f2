# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of regions as the settings say."""

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_ncd.regions.cutting import cut_regions, fit_range
from anomalib_ncd.regions.mebin import binarize, fit_score_range
from anomalib_ncd.regions.robust_range import fit_robust_range, map_facts
from anomalib_ncd.regions.settings import PAPER_REGIONS, RegionSettings

IMAGE = np.zeros((64, 64, 3), dtype=np.uint8)
ELEMENTS = RegionSettings(method="elements")


def _map() -> np.ndarray:
    anomaly_map = np.zeros((32, 32))
    anomaly_map[4:8, 4:8], anomaly_map[4:8, 11:15], anomaly_map[20, 20] = 1, 0.8, 0.4
    return anomaly_map


def test_ranges_are_those_of_the_methods() -> None:
    maps = [_map(), _map() * 0.5, _map().T]
    assert fit_range(iter(maps), "mebin") == fit_score_range(maps)
    robust = fit_robust_range([map_facts(array) for array in maps])
    assert fit_range(iter(maps), "elements") == fit_range(iter(maps), "masks") == robust.score_range
    with_normal = fit_robust_range([map_facts(array) for array in maps], [map_facts(_map() * 0.1)])
    assert fit_range(maps, "threshold", iter([_map() * 0.1])) == with_normal.score_range != robust.score_range


def test_hot_and_inverted_maps_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit_range([_map(), _map(), 60 * _map(), _map()], "elements")
        assert "map 2 has a peak more than five times as high as all others." in caplog.text
        assert "is that of the others" in caplog.text
        assert "inverted" not in caplog.text
        fit_range([1 - _map(), 1 - _map()], "elements", names=["a.png", "b.png"])
    assert "as in a.png" in caplog.text
    assert "Are the maps inverted?" in caplog.text


def test_the_paper_s_range_takes_hot_maps_but_not_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    maps = [_map(), 60 * _map(), 0.9 * _map(), 400 * _map()]
    with caplog.at_level(logging.WARNING):
        names = ["a.npy", "b.npy", "c.npy", "d.npy"]
        assert fit_range(maps, "mebin", names=names) == (0.9, 400.0)
    assert "d.npy has a peak more than five times as high as all others, as have 1 more." in caplog.text
    assert "leaves the others without a mask" in caplog.text


@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 8))
def test_an_image_with_ten_times_the_peak_changes_no_other_mask(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [cv2.GaussianBlur(rng.random((40, 40)), (9, 9), 0) * rng.uniform(0.5, 1) for _ in range(count)]
    hot = maps[0].copy()
    hot[20, 20] = 10 * max(array.max() for array in maps)
    before, after = fit_range(maps, "elements"), fit_range([*maps, hot], "elements")
    assert before == after
    for array in maps:
        masks = [cut_regions(IMAGE, array, score_range, ELEMENTS)[0].mask for score_range in (before, after)]
        np.testing.assert_array_equal(*masks)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1.2, 4.9), with_normal=st.booleans())
def test_one_image_with_a_somewhat_higher_peak_takes_no_regions_away(
    seed: int, factor: float, with_normal: bool
) -> None:
    rng = np.random.default_rng(seed)
    grid = np.indices((56, 56)) - 28

    def product(height: float) -> np.ndarray:
        """A restless map with a defect; heights as of a detector whose peaks are 20 to 36.7, the median 27.6."""
        y, x = (grid[axis] - rng.integers(-20, 20) for axis in range(2))
        noise = cv2.GaussianBlur(rng.uniform(0, 40, (56, 56)), (7, 7), 0) * 0.6
        return noise + max(height - noise.max(), 0) * np.exp(-(x**2 + y**2) / 18)

    maps = [product(height) for height in np.clip(rng.normal(27.6, 4, 60), 20, 36.7)]
    good = [product(0) for _ in range(20)]
    hot = product(0)
    hot[20:24, 20:24] = factor * max(array.max() for array in maps)
    normal = good if with_normal else []
    before, after = (fit_range([*maps, *more], "elements", normal) for more in ([], [hot]))
    num_found = [sum(bool(cut_regions(IMAGE, array, r, ELEMENTS)[1]) for array in maps) for r in (before, after)]
    assert num_found[0] >= (0.8 if with_normal else 0.7) * len(maps)
    assert num_found[1] >= num_found[0] - 3


def test_elements_have_a_region_each() -> None:
    binarized, regions = cut_regions(IMAGE, _map(), (0, 1), ELEMENTS)
    assert binarized.num_components == len(regions) == 3
    assert [region.area for region in regions] == [64, 64, 4]
    assert sorted(region.score for region in regions) == pytest.approx([0.4, 0.8, 1.0])


def test_near_elements_are_merged_as_masks() -> None:
    settings = RegionSettings(method="elements", merge_distance_ratio=0.1)
    assert [region.area for region in cut_regions(IMAGE, _map(), (0, 1), settings)[1]] == [128, 4]


def test_a_threshold_is_for_all_maps() -> None:
    settings = RegionSettings(method="threshold", threshold=0.8)
    binarized, regions = cut_regions(IMAGE, _map(), (0, 1), settings)
    assert (binarized.threshold, len(regions)) == (0.8, 2)
    assert cut_regions(IMAGE, _map() * 0.7, (0, 1), settings)[1] == []


@pytest.mark.parametrize("size", [16, 32, 128])
def test_masks_are_taken_as_they_are(size: int) -> None:
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[size // 2 :, size // 2 :] = 255
    _, [region] = cut_regions(IMAGE, mask, (0, 255), RegionSettings(method="masks"))
    assert region.area == 32 * 32
    assert region.mask.sum() == region.area
    assert region.score == 1.0


@pytest.mark.parametrize(("method", "height"), [("elements", 0.4), ("masks", 0)])
def test_nothing_found_is_no_region(method: str, height: float) -> None:
    binarized, regions = cut_regions(IMAGE, _map() * height, (0, 1), RegionSettings(method=method))
    assert (binarized.num_components, regions) == (0, [])


def test_mebin_is_the_papers() -> None:
    anomaly_map = np.zeros((128, 128))
    anomaly_map[8:20, 8:20] = 1
    image = np.zeros((256, 256, 3), dtype=np.uint8)
    settings = replace(PAPER_REGIONS, padding_ratio=1.0, min_size_ratio=0.01)
    binarized, [region] = cut_regions(image, anomaly_map, (0, 1), settings)
    assert binarized.num_components == 1
    assert region.image.shape[0] == 28
    _, [whole] = cut_regions(image, anomaly_map, (0, 1), replace(PAPER_REGIONS, erosion_size=20))
    assert whole.image.shape == image.shape


@pytest.mark.parametrize("side", [200, 64, 28, 4])
def test_the_papers_erosion_is_that_of_maps_of_any_size(side: int) -> None:
    anomaly_map = np.pad(np.ones((side // 2, side // 2)), ((0, side - side // 2), (0, side - side // 2)))
    image = np.zeros((300, 300, 3), np.uint8)
    binarized, regions = cut_regions(image, anomaly_map, (0, 1), PAPER_REGIONS)
    np.testing.assert_array_equal(binarized.mask, binarize(anomaly_map, (0, 1), 4, 4, 6).mask)
    assert bool(regions[0].area) == (side > 4)


def test_the_papers_regions_are_those_of_the_golden_maps(golden_maps):
    score_range = fit_range(golden_maps.maps, "mebin")
    assert score_range == fit_score_range(golden_maps.maps)
    for anomaly_map in golden_maps.maps[:20]:
        binarized, _ = cut_regions(np.zeros((256, 256, 3), np.uint8), anomaly_map, score_range, PAPER_REGIONS)
        np.testing.assert_array_equal(binarized.mask, binarize(anomaly_map, score_range).mask)


def test_sides_of_a_map_must_not_be_swapped() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="the image is 60x40 pixels and its anomaly map 40x60: sides are swapped"):
        cut_regions(image, np.zeros((60, 40)), (0, 1), ELEMENTS)
    assert cut_regions(image, np.zeros((32, 32)), (0, 1), ELEMENTS)[1] == []


def test_example_of_fit_range():
    maps = [np.array([[0, 1, 8]]), np.array([[1, 0, 8]]), np.array([[1, 0, 90]])]
    assert (fit_range(maps, "mebin"), fit_range(maps, "elements")) == ((8.0, 90.0), (0.25, 12.25))
