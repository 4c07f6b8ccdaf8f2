# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Boxes around main elements: squares, and the merging of those that lie close together."""

from collections.abc import Iterator

import numpy as np

MAX_PAIRS = 1_000_000  # of boxes whose distances are in memory at a time


def square_boxes(
    rectangles_xywh: np.ndarray, size_hw: tuple[int, int], padding_ratio: float, min_size_ratio: float
) -> np.ndarray:
    """Put a padded square ``(N, 4)`` float64 xyxy around each rectangle ``(N, 4)``, shifted back into the image.

    A square is at most as large as the image's longer side, so it can still leave the shorter one; half of it is at
    least `min_size_ratio` of the longer side, and `padding_ratio` is added to the longer side of a rectangle.
    """
    corners, sides = rectangles_xywh[:, :2], rectangles_xywh[:, 2:]
    longest = max(size_hw)
    # In this order of operations, as truncation feels the last bit.
    radii = (sides.max(axis=1) * (1 + padding_ratio) * 0.5).astype(np.int64)
    radii = np.minimum(np.maximum(radii, int(longest * min_size_ratio)), int(longest * 0.5))[:, None]
    centers = (2 * corners + sides) // 2
    upper, lower = centers - radii, centers + radii
    extent = np.array(size_hw[::-1])
    shift = np.where(upper < 0, -upper, np.minimum(extent - lower, 0))
    return np.concatenate([upper + shift, lower + shift], axis=1).astype(np.float64)


def merge_close_boxes(boxes_xyxy: np.ndarray, max_distance: float) -> np.ndarray:
    """Merge each group of boxes ``(N, 4)`` that lie nearer to each other than a distance; see :func:`box_distances`.

    A box and its neighbours form a group; groups inside other groups are left out, and equal boxes count once. A group
    becomes its bounding box, made square around its middle after each box that is added. Groups are in the order of the
    boxes that made them.
    """
    unique, position = np.unique(np.asarray(boxes_xyxy, dtype=np.float64), axis=0, return_index=True)
    # In the order of the boxes as given, as later sorting keeps it among equals.
    owners = np.argsort(position)
    groups = _packed_groups(unique, owners, max_distance)
    first = np.sort(np.unique(groups, axis=0, return_index=True)[1])
    groups, owners = groups[first], owners[first]
    return np.stack([_union_square(unique[members]) for members in _largest_groups(groups, owners, unique)])


def _packed_groups(boxes_xyxy: np.ndarray, owners: np.ndarray, max_distance: float) -> np.ndarray:
    """Each owner's box with its neighbours, a bit a box: a wide mask has thousands of them."""
    step = max(1, MAX_PAIRS // len(boxes_xyxy))
    parts = []
    for first in range(0, len(owners), step):
        chosen = owners[first : first + step]
        near = box_distances(boxes_xyxy[chosen], boxes_xyxy) < max_distance
        near[np.arange(len(chosen)), chosen] = True
        parts.append(np.packbits(near, axis=1))
    return np.concatenate(parts)


def _largest_groups(groups: np.ndarray, owners: np.ndarray, boxes_xyxy: np.ndarray) -> Iterator[np.ndarray]:
    """Members of each group that lies in no other; that one's owner would be a neighbour, and so a member."""
    count = len(boxes_xyxy)
    sizes = np.array([np.unpackbits(group).sum() for group in groups])
    group_of = np.full(count, -1)
    group_of[owners] = np.arange(len(owners))
    for index, group in enumerate(groups):
        members = np.flatnonzero(np.unpackbits(group, count=count))
        others = group_of[members]
        others = others[(others >= 0) & (sizes[others] > sizes[index])]
        outermost = members[np.concatenate([boxes_xyxy[members].argmin(axis=0), boxes_xyxy[members].argmax(axis=0)])]
        for member in outermost:  # of many groups nearly all fail here already
            others = others[groups[others, member // 8] & (128 >> (member % 8)) > 0]
        if not (group & ~groups[others] == 0).all(axis=1).any():
            yield members


def box_distances(boxes_xyxy: np.ndarray, others_xyxy: np.ndarray | None = None) -> np.ndarray:
    """Distances ``(N, M)`` from each box to each other, or of others: Euclidean between edges, -1 for overlap."""
    others_xyxy = boxes_xyxy if others_xyxy is None else others_xyxy
    upper, lower = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    gaps = np.maximum(upper - others_xyxy[None, :, 2:], others_xyxy[None, :, :2] - lower)  # (N, M, 2)
    distances = np.hypot(*np.moveaxis(np.maximum(gaps, 0), -1, 0))
    return np.where((gaps < 0).all(axis=-1), -1.0, distances)


def _union_square(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Add boxes one by one, and make the bounding box square after each; one box stays as it is."""
    left, top, right, bottom = boxes_xyxy[0].tolist()
    for box in boxes_xyxy[1:].tolist():
        left, top = min(left, box[0]), min(top, box[1])
        right, bottom = max(right, box[2]), max(bottom, box[3])
        x, y, radius = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
        left, top, right, bottom = x - radius, y - radius, x + radius, y + radius
    return np.array([left, top, right, bottom])
