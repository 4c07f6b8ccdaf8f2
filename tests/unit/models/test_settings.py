# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest

from anomalib_ncd.models.settings import check_settings

GOOD = {
    "num_novel_classes": 2,
    "num_cached_views": 4,
    "trainable_blocks": 1,
    "mask_layers": 1,
    "prototypes": "random",
    "class_sizes": "equal",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_novel_classes": 1},
        {"num_novel_classes": "auto"},
        {"num_cached_views": None, "trainable_blocks": 2, "mask_layers": 0},
        {"prototypes": "clusters", "class_sizes": "clusters"},
        {"prototypes": "compared", "class_sizes": "clusters"},
    ],
)
def test_settings_that_go_together_pass(changes):
    assert check_settings(**(GOOD | changes)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_novel_classes": "many"}, r"`num_novel_classes` must be at least 1 .* or 'auto', got 'many'"),
        ({"num_novel_classes": 0}, r"`num_novel_classes` must be at least 1 .* got 0"),
        ({"trainable_blocks": 2}, "`num_cached_views` needs `trainable_blocks=1`, got 2"),
        ({"prototypes": "zeros"}, "`prototypes` must be .clusters., .compared. or .random., got .zeros."),
        ({"class_sizes": "any"}, "`class_sizes` must be .equal. or .clusters., got .any."),
        (
            {"class_sizes": "clusters"},
            "`class_sizes=.clusters.` needs .* from clusters, got `prototypes=.random.",
        ),
        ({"mask_layers": 0}, "needs `mask_layers` of 1 or more, got 0"),
    ],
)
def test_others_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_settings(**(GOOD | changes))
