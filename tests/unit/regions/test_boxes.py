# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import tracemalloc

import numpy as np
import pytest

from anomalib_ncd.regions import boxes as boxes_module
from anomalib_ncd.regions.boxes import box_distances, merge_close_boxes, square_boxes


def test_square_is_padded_around_the_middle():
    boxes = square_boxes(np.array([[100, 100, 60, 20]]), (400, 400), padding_ratio=0.1, min_size_ratio=0.01)
    np.testing.assert_array_equal(boxes, [[97, 77, 163, 143]])


@pytest.mark.parametrize(
    ("rectangle", "expected"),
    [
        ([0, 0, 4, 4], [0, 0, 20, 20]),
        ([96, 90, 4, 10], [80, 80, 100, 100]),
        ([48, 48, 4, 4], [40, 40, 60, 60]),
    ],
)
def test_small_squares_have_a_least_size_and_stay_inside(rectangle, expected):
    boxes = square_boxes(np.array([rectangle]), (100, 100), padding_ratio=0.1, min_size_ratio=0.1)
    np.testing.assert_array_equal(boxes, [expected])


def test_square_of_a_long_element_leaves_a_narrow_image():
    boxes = square_boxes(np.array([[0, 10, 200, 5]]), (50, 200), padding_ratio=0.1, min_size_ratio=0.1)
    # Side 200, moved down to the upper edge of the image, and leaving it below.
    np.testing.assert_array_equal(boxes, [[0, 0, 200, 200]])


def test_distances_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 8, 8], [13, 2, 20, 4], [13, 14, 20, 20], [10, 0, 12, 10]], dtype=float)
    distances = box_distances(boxes)
    np.testing.assert_array_equal(distances[0], [-1, -1, 3, 5, 0])
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(np.diag(distances), -1)


def test_far_boxes_stay_as_they_are():
    boxes = np.array([[50, 50, 60, 55], [0, 0, 10, 10]], dtype=float)
    np.testing.assert_array_equal(merge_close_boxes(boxes, 5), boxes)


def test_equal_boxes_count_once():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], dtype=float)
    np.testing.assert_array_equal(merge_close_boxes(boxes, 0), boxes[:1])


def test_chain_makes_overlapping_groups():
    # The middle box is near both others, which are not near each other: its group holds all three.
    boxes = np.array([[0, 0, 10, 10], [12, 0, 22, 10], [24, 0, 34, 10]], dtype=float)
    np.testing.assert_array_equal(merge_close_boxes(boxes, 3), [[0, -12, 34, 22]])
    # In a chain of four, the two groups of three overlap and neither is inside the other.
    boxes = np.vstack([boxes, [36, 0, 46, 10]])
    np.testing.assert_array_equal(merge_close_boxes(boxes, 3), [[0, -12, 34, 22], [12, -12, 46, 22]])


def test_union_is_squared_after_each_box():
    boxes = np.array([[0, 0, 4, 4], [5, 0, 9, 4], [5, 6, 9, 10]], dtype=float)
    # First two: 0 to 9 wide, -2.5 to 6.5 high; with the third 0 to 9, -2.5 to 10, then square of side 12.5.
    np.testing.assert_array_equal(merge_close_boxes(boxes, 4), [[-1.75, -2.5, 10.75, 10.0]])


def test_merging_is_independent_of_order():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 300, (40, 2))
    boxes = np.hstack([corners, corners + rng.integers(5, 30, (40, 1))]).astype(float)
    merged = merge_close_boxes(boxes, 4)
    shuffled = merge_close_boxes(boxes[rng.permutation(40)], 4)
    np.testing.assert_array_equal(np.unique(merged, axis=0), np.unique(shuffled, axis=0))


def merged_by_definition(boxes, max_distance):
    """All groups at once, each compared with each: what the sparse search must give."""
    unique, position = np.unique(boxes.astype(float), axis=0, return_index=True)
    near = box_distances(unique) < max_distance
    np.fill_diagonal(near, val=True)
    groups = []
    for row in np.argsort(position):
        members = frozenset(np.flatnonzero(near[row]).tolist())
        groups += [] if members in groups else [members]
    largest = [group for group in groups if not any(group < other for other in groups)]
    return [merge_close_boxes(unique[sorted(group)], np.inf)[0] for group in largest]


@pytest.mark.parametrize("seed", range(20))
def test_merging_is_that_of_the_definition(seed, monkeypatch):
    monkeypatch.setattr(boxes_module, "MAX_PAIRS", 100)  # several parts
    rng = np.random.default_rng(seed)
    centers, radii = rng.integers(0, rng.integers(20, 200), (40, 2)), rng.integers(1, 25, (40, 1))
    boxes = np.hstack([centers - radii, centers + radii])
    np.testing.assert_array_equal(merge_close_boxes(boxes, 4), merged_by_definition(boxes, 4))


def test_thousands_of_boxes_are_merged_without_a_table_of_all_pairs():
    x, y = np.meshgrid(np.arange(0, 1000, 20), np.arange(0, 1000, 20))
    boxes = np.stack([x, y, x + 50, y + 50], axis=-1).reshape(-1, 4).astype(float)  # 2500, which overlap
    tracemalloc.start()
    merged = merge_close_boxes(boxes, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < len(merged) < len(boxes)
    assert peak < 60e6  # of all pairs alone the distances take 100 MB
