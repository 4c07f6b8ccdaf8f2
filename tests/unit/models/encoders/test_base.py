# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.models.encoders.base import Frozen, check_range, check_views, in_parts


@pytest.mark.parametrize(
    ("rows", "per_pass", "sizes"), [(5, 2, [2, 2, 1]), (4, 4, [4]), (0, 3, [1]), (3, 1, [1, 1, 1])]
)
def test_rows_pass_in_parts(rows, per_pass, sizes):
    found = []

    def add(first, second):
        found.append(len(first))
        return first + second

    inputs = torch.arange(rows), 10 * torch.arange(rows)
    assert torch.equal(in_parts(add, per_pass, *inputs), 11 * torch.arange(rows))
    assert found == sizes


def test_parts_of_several_tensors_are_put_together_in_order():
    rows = torch.arange(23)
    tokens, attended = in_parts(lambda some, more: Frozen(some + more, some * more), 10, rows, rows)
    assert torch.equal(tokens, 2 * rows)
    assert torch.equal(attended, rows**2)


def test_views_that_fit_pass():
    check_views(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8), 8)


@pytest.mark.parametrize(
    ("images", "masks", "match"),
    [
        ((2, 1, 8, 8), (2, 1, 8, 8), r"`images` must have shape \(B, 3, 8, 8\), got \(2, 1, 8, 8\)"),
        ((2, 3, 16, 16), (2, 1, 8, 8), "resize or set `image_size`"),
        ((2, 3, 8, 8), (2, 8, 8), r"`masks` must have shape.*masks.unsqueeze\(1\)"),
        ((2, 3, 8, 8), (2, 3, 8, 8), "one channel per mask"),
        ((2, 3, 8, 8), (2, 1, 4, 4), "`masks` must be 8 x 8"),
        ((2, 3, 8, 8), (3, 1, 8, 8), "as many as `images`, got 3 and 2"),
    ],
)
def test_views_that_do_not_fit_are_refused(images, masks, match):
    with pytest.raises(ValueError, match=match):
        check_views(torch.zeros(images), torch.zeros(masks), 8)


def test_values_out_of_range_are_named():
    check_range("depth", 3, 0, 3)
    with pytest.raises(ValueError, match="`depth` must be between 0 and 3 for this backbone, got 4"):
        check_range("depth", 4, 0, 3)
