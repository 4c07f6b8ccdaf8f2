# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import torch
from torch.nn import functional as F

from anomalib_ncd.models.clustering import prototypes as prototypes_module
from anomalib_ncd.models.clustering.prototypes import cluster_prototypes

SIZES = (9, 5, 16)


def make_regions(sizes=SIZES, width=8):
    """Regions around one axis per class; the class of the last axis has the lowest scores."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    features = F.one_hot(labels, width) + 0.05 * torch.randn(len(labels), width, generator=generator)
    scores = torch.where(labels == len(sizes) - 1, 0.2, 0.8)
    return features, scores, labels


def test_prototypes_are_the_centres():
    features, scores, _ = make_regions()
    prototypes = cluster_prototypes(features, scores, num_classes=3, num_heads=4)
    assert prototypes.shape == (4, 3, 8)
    # Slot 0 has the lowest scores; the others come in order of appearance.
    assert prototypes.argmax(dim=-1).tolist() == [[2, 0, 1]] * 4
    torch.testing.assert_close(prototypes.norm(dim=-1), torch.ones(4, 3))


def test_heads_are_different_opinions_under_the_same_numbers():
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(3))
    scores = torch.rand(60)
    prototypes = cluster_prototypes(features, scores, num_classes=4, num_heads=3, seed=1)
    assert torch.equal(prototypes, cluster_prototypes(features, scores, num_classes=4, num_heads=3, seed=1))
    assert not torch.allclose(prototypes[0], prototypes[1])
    similarity = prototypes[0] @ prototypes[1].T
    assert similarity.diagonal().mean() > (similarity.sum() - similarity.trace()) / 12


def test_fewer_distinct_regions_than_classes():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    prototypes = cluster_prototypes(features, torch.tensor([0.9, 0.9, 0.1]), num_classes=4, num_heads=2)
    assert prototypes.isfinite().all()
    assert (prototypes[:, 2:] @ features.T).max() < 0  # nothing is ever put there


def test_many_regions_start_from_a_sample(monkeypatch):
    features, scores, _ = make_regions((90, 50, 160))
    monkeypatch.setattr(prototypes_module, "MAX_CLUSTERED", 100)
    prototypes = cluster_prototypes(features, scores, num_classes=3, num_heads=2, seed=3)
    assert prototypes.argmax(dim=-1)[:, 0].tolist() == [2, 2]
    assert torch.equal(prototypes, cluster_prototypes(features, scores, 3, 2, seed=3))
