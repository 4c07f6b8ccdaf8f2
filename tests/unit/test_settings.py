# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import asdict, replace

import pytest

from anomalib_ncd.settings import PAPER, TrainingSettings

OF_THE_PAPER = {
    "mask_layers": 9,
    "trainable_blocks": 1,
    "feature_layers": 1,
    "empty_mask": "cls",
    "num_heads": 4,
    "prototypes": "random",
    "num_cached_views": None,
    "merging_temperature": 100.0,
    "learning_rate": 0.003,
    "momentum": 0.9,
    "weight_decay": 5e-5,
    "contrastive": True,
    "supervised_weight": 0.3,
    "mean_entropy_weight": 4.0,
    "normal_threshold": 0.5,
}


def test_the_papers_constants():
    assert asdict(PAPER) == OF_THE_PAPER


def test_the_defaults_differ_in_what_was_mended():
    defaults = asdict(TrainingSettings())
    changed = {name for name, value in OF_THE_PAPER.items() if defaults[name] != value}
    assert changed == {
        "empty_mask",
        "num_cached_views",
        "feature_layers",
        "prototypes",
        "contrastive",
        "merging_temperature",
    }


@pytest.mark.parametrize(
    ("settings", "device_type", "expected"),
    [
        (TrainingSettings(), "cpu", 8),
        (TrainingSettings(), "cuda", None),
        (TrainingSettings(), "mps", None),
        (TrainingSettings(num_cached_views=3), "cuda", 3),
        (TrainingSettings(num_cached_views=None), "cpu", None),
        (TrainingSettings(trainable_blocks=2), "cpu", None),
        (TrainingSettings(mask_layers=0), "cpu", None),
    ],
)
def test_views_are_kept_where_that_is_faster(settings, device_type, expected):
    assert settings.cached_views_on(device_type) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_cached_views": 4, "trainable_blocks": 2}, "`num_cached_views` needs `trainable_blocks=1`, got 2"),
        ({"num_cached_views": 4, "mask_layers": 0}, "keeps what a mask shows: `mask_layers` must be above 0, got 0"),
        ({"num_cached_views": "many"}, "`num_cached_views` must be a number, None or 'auto', got 'many'"),
        ({"prototypes": "zeros"}, "`prototypes` must be 'clusters' or 'random', got 'zeros'"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TrainingSettings(), **changes)
