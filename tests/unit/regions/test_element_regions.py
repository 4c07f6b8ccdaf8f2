# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the regions of elements."""

import numpy as np
import pytest

from anomalib_ncd.regions.element_regions import cut_elements


def _image(height: int, width: int) -> np.ndarray:
    """Pixels hold their column, their row and 0."""
    rows, columns = np.indices((height, width))
    return np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_crops_may_overlap_but_masks_do_not() -> None:
    elements = np.zeros((100, 100), dtype=np.int32)
    elements[40:50, 40:50], elements[40:45, 54:59] = 2, 1
    anomaly_map = np.where(elements == 1, 1.5, elements / 4)
    first, second = cut_elements(_image(100, 100), elements, anomaly_map, (0, 1), min_size_ratio=0.1)
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
    [region] = cut_elements(_image(50, 100), elements, elements, (0, 1), padding_ratio=0, min_size_ratio=0)
    assert region.area == 50
    assert region.box_xyxy == (30.0, 7.0, 40.0, 17.0)


def test_no_element_is_lost_in_a_small_image() -> None:
    elements = np.zeros((64, 64), dtype=np.int32)
    elements[3, 5], elements[33, 62] = 1, 2
    regions = cut_elements(_image(8, 8), elements, elements, (0, 4))
    assert [region.area for region in regions] == [1, 1]
    assert [region.score for region in regions] == [0.25, 0.5]


def test_a_box_longer_than_the_image_is_black_outside() -> None:
    elements = np.ones((20, 60), dtype=np.int32)
    [region] = cut_elements(_image(20, 60), elements, elements, (0, 1))
    assert region.image.shape == (60, 60, 3)
    assert region.mask.sum() == 1200


def test_no_element_gives_no_region() -> None:
    assert cut_elements(_image(8, 8), np.zeros((4, 4), dtype=np.int32), np.zeros((4, 4)), (0, 1)) == []


def test_a_range_without_width_scores_what_lies_above_it() -> None:
    elements = np.ones((4, 4), dtype=np.int32)
    [region] = cut_elements(_image(4, 4), elements, elements, (0, 0))
    assert region.score == 1


def test_bad_arguments_are_refused() -> None:
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
