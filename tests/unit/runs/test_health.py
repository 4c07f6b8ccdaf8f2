# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import numpy as np
import pytest
import torch

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.health import run_evidence, run_health

SLOTS = ["normal", "class_1", "class_2"]


@pytest.fixture
def results():
    """Nine regions, three of each class, whose features are three directions."""
    slots = torch.arange(3).repeat_interleave(3)
    by_region = torch.full((9, 3), 0.1)
    by_region[torch.arange(9), slots] = 0.8
    batch = NcdBatch(
        image_path=[f"{number}.png" for number in range(9)],
        image_size=torch.full((9, 2), 64),
        image=None,
        region_mask=None,
        region_image_index=torch.arange(9),
        region_box_xyxy=torch.zeros(9, 4),
        region_score=torch.tensor([0.1] * 3 + [0.9] * 6),
        region_area=torch.tensor([0] * 3 + [20] * 6),
        region_feature=torch.rand(9, 4),
        region_reference=torch.eye(3)[slots] + 0.01 * torch.rand(9, 3),
        region_head_class_id=torch.stack([slots, slots], dim=1),
    ).with_predictions(by_region, RegionMerging(tuple(SLOTS), 0))
    return RunResults(batch, [], SLOTS, "regions", np.zeros((9, 2), np.float32), [], 0)


def test_figures_of_a_clean_run(results):
    health = run_health(results.named(SLOTS), SLOTS)
    values = {name: figure["value"] for name, figure in health["figures"].items()}
    assert values["head_agreement"] == values["resample_agreement"] == values["resample_stability"] == 1
    assert values["empty_masks"] == values["smallest_class"] == values["largest_class"] == pytest.approx(1 / 3)
    assert values["normal_separation"] == 1
    assert values["confidence"] == pytest.approx(0.8)
    assert values["effective_share"] == pytest.approx(1)
    assert values["silhouette"] > 0.9
    assert health["effective_number"] == pytest.approx(3)
    # Two neighbours of five are of the same class: (0.4 - 0.25) / 0.75, times 2 / 3.
    assert health["score"] == pytest.approx(0.2 * 2 / 3)


def test_slots_of_one_name_are_one_class(results):
    names = ["normal", "dent", "dent"]
    evidence = run_evidence(results.named(names), names)
    assert evidence.preds.tolist() == [0] * 3 + [1] * 6
    assert evidence.num_classes == 2
    assert evidence.head_preds.tolist() == [[0] * 3 + [1] * 6] * 2
    assert evidence.is_normal.tolist() == [True] * 3 + [False] * 6
    normal = ["normal", "dent", "normal"]
    assert run_evidence(results.named(normal), normal).is_normal.tolist() == [True] * 3 + [False] * 3 + [True] * 3


def test_what_a_run_does_not_have_is_left_out(results):
    batch = replace(results.batch, region_head_class_id=None, region_reference=None)
    plain = replace(results, batch=batch, slot_names=["class_1", "class_2", "class_3"], normal_slot=None)
    evidence = run_evidence(plain, plain.slot_names)
    assert evidence.is_normal is None
    assert np.array_equal(evidence.features, results.batch.region_feature.half().float().numpy())
    figures = run_health(plain, plain.slot_names)["figures"]
    assert not {"head_agreement", "normal_separation"} & set(figures)
    bare = replace(plain, batch=replace(batch, region_feature=None))
    assert run_health(bare, bare.slot_names)["score"] is None


def test_batches_without_predictions_are_refused(results):
    with pytest.raises(ValueError, match="holds no predictions"):
        run_evidence(replace(results, batch=replace(results.batch, region_pred_class_id=None)), SLOTS)
