# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch.nn import functional as F

from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.clustering import prototypes
from anomalib_ncd.models.clustering.prototypes import cluster_start, start_from_clusters, uniform_prior
from anomalib_ncd.models.lightning_model import AnomalyNcd

SIZES = (9, 5, 16)


def make_regions(sizes=SIZES, width=8):
    """Regions around one axis per class; the class of the last axis has the lowest scores."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    features = F.one_hot(labels, width) + 0.05 * torch.randn(len(labels), width, generator=generator)
    scores = torch.where(labels == len(sizes) - 1, 0.2, 0.8)
    return features, scores, labels


def test_prototypes_are_the_centres_and_the_prior_their_sizes():
    features, scores, _ = make_regions()
    start = cluster_start(features, scores, num_classes=3, num_heads=4)
    assert start.prototypes.shape == (4, 3, 8)
    # Slot 0 has the lowest scores; the others come in order of appearance.
    axes = start.prototypes.argmax(dim=-1)
    assert axes.tolist() == [[2, 0, 1]] * 4
    torch.testing.assert_close(start.prototypes.norm(dim=-1), torch.ones(4, 3))
    torch.testing.assert_close(start.class_prior, torch.tensor([17.0, 10.0, 6.0]) / 33)


def test_heads_are_different_opinions_under_the_same_numbers():
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(3))
    start = cluster_start(features, torch.rand(60), num_classes=4, num_heads=3, seed=1)
    again = cluster_start(features, torch.rand(60), num_classes=4, num_heads=3, seed=1)
    assert torch.equal(start.class_prior.sort().values, again.class_prior.sort().values)
    assert not torch.allclose(start.prototypes[0], start.prototypes[1])
    similarity = start.prototypes[0] @ start.prototypes[1].T
    assert similarity.diagonal().mean() > (similarity.sum() - similarity.trace()) / 12


def test_fewer_distinct_regions_than_classes():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    start = cluster_start(features, torch.tensor([0.9, 0.9, 0.1]), num_classes=4, num_heads=2)
    assert start.prototypes.isfinite().all()
    torch.testing.assert_close(start.class_prior, torch.tensor([2.0, 3.0, 1.0, 1.0]) / 7)
    assert (start.prototypes[:, 2:] @ features.T).max() < 0  # nothing is ever put there


def test_many_regions_start_from_a_sample(monkeypatch):
    features, scores, _ = make_regions((90, 50, 160))
    monkeypatch.setattr(prototypes, "MAX_CLUSTERED", 100)
    start = cluster_start(features, scores, num_classes=3, num_heads=2, seed=3)
    assert start.prototypes.argmax(dim=-1)[:, 0].tolist() == [2, 2]
    torch.testing.assert_close(start.class_prior, torch.tensor([160.0, 90.0, 50.0]) / 300, rtol=0, atol=0.25)
    assert float(start.class_prior.sum() * 103) == pytest.approx(103)
    assert torch.equal(start.prototypes, cluster_start(features, scores, 3, 2, seed=3).prototypes)


def test_uniform_prior():
    assert uniform_prior(5).tolist() == pytest.approx([0.2] * 5)


def test_regions_can_be_grouped_by_other_features():
    features, scores, _ = make_regions()
    grouped_by = F.one_hot(torch.arange(len(features)) % 3).float()
    start = cluster_start(features, scores, 3, 2, grouped_by=grouped_by)
    members = [features[number::3] for number in range(3)]
    order = [int(scores[number::3].mean() * 1e6) for number in range(3)]
    first = F.normalize(F.normalize(members[order.index(min(order))], dim=1).mean(dim=0), dim=0)
    for head in range(2):
        torch.testing.assert_close(start.prototypes[head, 0], first)


@pytest.mark.parametrize(("start", "sizes"), [("clusters", "clusters"), ("clusters", "equal"), ("random", "equal")])
def test_model_takes_prototypes_and_prior(start, sizes):
    features, scores, _ = make_regions(width=64)
    settings = {"pretrained": False, "num_novel_classes": 3, "mask_layers": 3}
    model = AnomalyNcd("test_vit", **settings, prototypes=start, class_sizes=sizes)
    model.set_base_classes(["scratch", "dent"])
    before = model.model.heads.weight.detach().clone()
    batch = NcdBatch(
        image_path=["image"],
        image_size=torch.tensor([[64, 64]]),
        image=None,
        region_mask=None,
        region_image_index=torch.zeros(30, dtype=torch.long),
        region_box_xyxy=torch.zeros(30, 4),
        region_score=scores,
        region_area=torch.ones(30, dtype=torch.long),
        region_feature=features,
    )
    start_from_clusters(model, [batch])
    weight = model.model.heads.weight.detach()
    torch.testing.assert_close(weight[:, :2], before[:, :2])  # base classes
    torch.testing.assert_close(weight.norm(dim=-1), before.norm(dim=-1))
    assert weight[0, 2:].argmax(dim=-1).tolist() == [2, 0, 1]
    if start == "random":
        assert model.loss.class_prior is None
    else:
        shares = torch.tensor([17.0, 10.0, 6.0]) / 33 if sizes == "clusters" else torch.full((3,), 1 / 3)
        torch.testing.assert_close(model.loss.class_prior, shares)
    with pytest.raises(ValueError, match="hold no features"):
        start_from_clusters(model, [batch.update(region_feature=None)])
