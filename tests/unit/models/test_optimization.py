# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import copy

import pytest
import torch
from torch import nn

from anomalib_ncd.models.optimization import build_optimizer, relative_learning_rate


def test_vectors_and_frozen_parameters_have_no_weight_decay():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    model[2].requires_grad_(requires_grad=False)
    matrices, vectors = build_optimizer(model.parameters(), weight_decay=0.1).param_groups
    assert matrices["weight_decay"] == pytest.approx(0.1)
    assert vectors["weight_decay"] == 0
    assert [p.ndim for p in matrices["params"]] == [2]
    assert [p.ndim for p in vectors["params"]] == [1, 1, 1]


def test_steps_are_those_of_the_plain_optimiser():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    plain = copy.deepcopy(ours)
    optimizers = [
        build_optimizer(ours.parameters(), weight_decay=0.1),
        build_optimizer(plain.parameters(), weight_decay=0.1),
    ]
    for group in optimizers[1].param_groups:
        group["fused"] = False
    for _ in range(3):
        inputs = torch.randn(5, 4)
        for model, optimizer in zip((ours, plain), optimizers, strict=True):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    for found, expected in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("num_epochs", [1, 7, 50])
def test_the_learning_rate_is_torchs_cosine(num_epochs):
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], learning_rate=0.003)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs, eta_min=0.003e-3)
    for epoch in range(num_epochs):
        assert relative_learning_rate(epoch, num_epochs) * 0.003 == pytest.approx(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()


def test_it_stays_low_after_the_last_epoch():
    assert relative_learning_rate(80, 50) == relative_learning_rate(50, 50) == pytest.approx(1e-3)
    assert relative_learning_rate(0, 0) == 1
