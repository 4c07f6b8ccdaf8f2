# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anomalib_ncd.models.losses import (
    AnomalyNcdLoss,
    build_optimizer,
    info_nce,
    mean_entropy,
    normal_weights,
    relative_learning_rate,
    self_training,
    supervised,
    supervised_contrastive,
    teacher_temperature,
)
from anomalib_ncd.settings import PAPER

REGIONS, HEADS, CLASSES, BASE = 6, 2, 7, 3


@pytest.fixture(scope="module")
def reference(golden_dir):
    stored = np.load(golden_dir / "losses.npz")
    arrays = {key: torch.from_numpy(stored[key]) for key in stored if stored[key].ndim}
    arrays["scores"] = torch.full((10,), 0.123)  # what stands at base regions must not matter
    arrays["scores"][~arrays["is_base"]] = arrays["anomaly_scores"]
    return arrays, {key: float(stored[key]) for key in stored if not stored[key].ndim}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "projections": torch.randn(2 * REGIONS, 8, generator=generator),
        "logits": torch.randn(HEADS, 2 * REGIONS, CLASSES, generator=generator).tanh(),
        "labels": torch.tensor([0, 0, 1, 0, 2, 0]),
        "is_base": torch.tensor([True, False, True, False, True, False]),
        "scores": torch.tensor([0.0, 0.1, 0.0, 0.9, 0.0, 0.4]),
    }


def close(got, want, atol=1e-5):
    assert torch.as_tensor(got).item() == pytest.approx(float(want), abs=atol)


@pytest.mark.parametrize("epoch", [0, 20, 49])
@pytest.mark.parametrize("head", [0, 1])
def test_golden_terms_of_each_head(reference, epoch, head):
    arrays, values = reference
    is_base, weights = arrays["is_base"], normal_weights(arrays["anomaly_scores"])
    logits = arrays["logits"][head]
    novel, base = logits[~is_base.repeat(2)], logits[is_base.repeat(2)]
    close(
        self_training(novel, 3, weights, teacher_temperature(epoch)),
        values[f"self_training_epoch{epoch}_head{head}"],
    )
    close(mean_entropy(novel), values[f"mean_entropy_head{head}"])
    close(supervised(base, arrays["labels"][is_base]), values[f"supervised_head{head}"])


def test_golden_contrastive_terms(reference):
    arrays, values = reference
    is_base = arrays["is_base"]
    close(info_nce(arrays["projections"]), values["contrastive"])
    base = arrays["projections"][is_base.repeat(2)]
    close(supervised_contrastive(base, arrays["labels"][is_base]), values["supervised_contrastive"])


def test_golden_weights_and_schedule(reference):
    arrays, _ = reference
    weights = normal_weights(arrays["anomaly_scores"]).double()
    torch.testing.assert_close(weights, arrays["pseudo_label_weights"], rtol=0, atol=1e-6)
    schedule = [teacher_temperature(epoch) for epoch in range(50)]
    np.testing.assert_allclose(schedule, arrays["teacher_temp_schedule"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("epoch", [0, 20, 49])
@pytest.mark.parametrize("order", [list(range(10)), [7, 0, 9, 3, 5, 1, 8, 2, 6, 4]], ids=["in order", "mixed"])
def test_golden_total_whatever_the_order_of_regions(reference, epoch, order):
    arrays, values = reference
    views = [*order, *(10 + i for i in order)]
    output = AnomalyNcdLoss(3)(
        arrays["projections"][views],
        arrays["logits"][:, views],
        arrays["labels"][order],
        arrays["is_base"][order],
        arrays["scores"][order],
        epoch,
    )
    training = [values[f"self_training_epoch{epoch}_head{head}"] for head in range(2)]
    entropy = [values[f"mean_entropy_head{head}"] for head in range(2)]
    per_head = [a + 4 * b for a, b in zip(training, entropy, strict=True)]
    cross_entropy = (values["supervised_head0"] + values["supervised_head1"]) / 2
    close(output.info_nce, values["contrastive"])
    close(output.supervised_contrastive, values["supervised_contrastive"])
    close(output.supervised, cross_entropy)
    close(output.self_training, sum(training) / 2)
    close(output.mean_entropy, sum(entropy) / 2)
    np.testing.assert_allclose(output.novel_per_head, per_head, rtol=0, atol=1e-5)
    total = 0.7 * (sum(per_head) / 2 + values["contrastive"])
    close(output.total, total + 0.3 * (cross_entropy + values["supervised_contrastive"]), atol=2e-5)


def test_info_nce_matches_cross_entropy_over_the_other_views():
    projections = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) * 3
    unit = projections / projections.norm(dim=1, keepdim=True)
    losses = []
    for view in range(8):
        others = [i for i in range(8) if i != view]
        target = torch.tensor(others.index((view + 4) % 8))
        losses.append(F.cross_entropy(unit[others] @ unit[view] / 0.5, target))
    torch.testing.assert_close(info_nce(projections, 0.5), torch.stack(losses).mean())


def test_supervised_contrastive_by_loops():
    projections = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = [4, 1, 4, 4, 1, 4]
    unit = F.normalize(projections, dim=-1)
    losses = []
    for i in range(6):
        denominator = sum(math.exp(unit[i] @ unit[k] / 0.07) for k in range(6) if k != i)
        positives = [j for j in range(6) if j != i and labels[j] == labels[i]]
        terms = [math.log(math.exp(unit[i] @ unit[j] / 0.07) / denominator) for j in positives]
        losses.append(-sum(terms) / len(terms))
    close(supervised_contrastive(projections, torch.tensor(labels[:3])), np.mean(losses), atol=1e-4)


def test_contrast_of_a_single_region_is_zero():
    projections = torch.randn(2, 5)
    close(info_nce(projections), 0)
    close(supervised_contrastive(projections, torch.tensor([3])), 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_epochs": 8}, [0.07] * 4 + [0.04] * 4),
        ({"warmup_epochs": 4}, [0.04] * 8),
        ({"warmup_epochs": 0}, [0.04] * 8),
        ({"warmup_epochs": 6, "repeats": 2}, [0.07, 0.07, 0.055, 0.055, 0.04, 0.04, 0.04, 0.04]),
    ],
)
def test_teacher_temperature_of_short_warmups(options, expected):
    assert [teacher_temperature(epoch, **options) for epoch in range(8)] == pytest.approx(expected)


def test_normal_weights_can_be_switched_off():
    assert not normal_weights(torch.tensor([0.0, 0.4]), None).any()


def test_self_training_matches_cross_entropy_with_soft_targets():
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.0, 0.5, 0.25, 0.1])
    teacher = (logits / 0.07).softmax(-1)
    teacher[:, :2] = 0
    teacher /= teacher.sum(-1, keepdim=True)
    both = weights.repeat(2)[:, None]
    target = (1 - both) * teacher + both * F.one_hot(torch.full((8,), 2), 5)
    expected = (F.cross_entropy(logits[:4] / 0.1, target[4:]) + F.cross_entropy(logits[4:] / 0.1, target[:4])) / 2
    torch.testing.assert_close(self_training(logits, 2, weights, 0.07), expected)


def test_self_training_when_the_base_classes_take_everything():
    logits = torch.tensor([[50.0, 0.0, 0.0]]).repeat(2, 1).requires_grad_()
    loss = self_training(logits, 1, torch.zeros(1), 0.04)
    loss.backward()
    close(loss, 500, atol=1e-3)
    assert logits.grad.isfinite().all()


def test_self_training_does_not_teach_the_teacher():
    logits = torch.randn(4, 5, requires_grad=True)
    self_training(logits, 2, torch.zeros(2), 0.07).backward()
    gradient = logits.grad.clone()
    fixed = logits.detach().clone().requires_grad_()
    teacher = (fixed.detach()[:, 2:] / 0.07).softmax(-1).roll(2, 0)
    (-(teacher * (fixed / 0.1).log_softmax(-1)[:, 2:]).sum(-1).mean()).backward()
    torch.testing.assert_close(gradient, fixed.grad)


def test_base_classes_take_no_part_in_the_mean_entropy_where_novel_ones_are_balanced(batch):
    balanced = AnomalyNcdLoss(BASE, replace(PAPER, prototypes="clusters"))
    first = balanced(**batch, epoch=0).mean_entropy
    batch["logits"] = batch["logits"].clone()
    batch["logits"][..., :BASE] += 0.5
    close(balanced(**batch, epoch=0).mean_entropy, first)
    assert not torch.isclose(AnomalyNcdLoss(BASE)(**batch, epoch=0).mean_entropy, first)


@pytest.mark.parametrize("classes", [2, 5])
def test_mean_entropy_extremes(classes):
    close(mean_entropy(torch.eye(classes) * 10), 0)
    collapsed = torch.zeros(6, classes)
    collapsed[:, 0] = 1e4
    collapsed.requires_grad_()
    loss = mean_entropy(collapsed)
    close(loss, math.log(classes))
    loss.backward()
    assert collapsed.grad.isfinite().all()


def test_supervised_matches_cross_entropy():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 3, 1])
    expected = (F.cross_entropy(logits[:3] / 0.1, labels) + F.cross_entropy(logits[3:] / 0.1, labels)) / 2
    torch.testing.assert_close(supervised(logits, labels), expected)


def test_views_may_change_places(batch):
    swapped = dict(batch)
    swapped["projections"] = batch["projections"].roll(REGIONS, 0)
    swapped["logits"] = batch["logits"].roll(REGIONS, 1)
    loss = AnomalyNcdLoss(BASE)
    for got, want in zip(loss(**swapped, epoch=3), loss(**batch, epoch=3), strict=True):
        torch.testing.assert_close(got, want)


def test_ignored_inputs_are_ignored(batch):
    changed = {**batch, "labels": batch["labels"].clone(), "scores": batch["scores"].clone()}
    changed["labels"][~batch["is_base"]] = 6
    changed["scores"][batch["is_base"]] = float("nan")
    loss = AnomalyNcdLoss(BASE)
    torch.testing.assert_close(loss(**changed, epoch=0).total, loss(**batch, epoch=0).total)


def test_weights_of_the_terms(batch):
    output = AnomalyNcdLoss(BASE, replace(PAPER, supervised_weight=0.2, mean_entropy_weight=3.0))(**batch, epoch=0)
    novel = output.self_training + 3 * output.mean_entropy
    expected = 0.8 * (novel + output.info_nce) + 0.2 * (output.supervised + output.supervised_contrastive)
    torch.testing.assert_close(output.total, expected)
    torch.testing.assert_close(output.novel_per_head.mean(), novel)
    assert not output.novel_per_head.requires_grad


def test_the_threshold_is_passed_on(batch):
    default, other = (
        AnomalyNcdLoss(BASE, one)(**batch, epoch=0) for one in (PAPER, replace(PAPER, normal_threshold=None))
    )
    assert not torch.allclose(other.self_training, default.self_training)


@pytest.mark.parametrize("base", [True, False])
def test_a_batch_of_one_kind(batch, base):
    batch["is_base"] = torch.full((REGIONS,), base)
    batch["projections"].requires_grad_()
    batch["logits"].requires_grad_()
    output = AnomalyNcdLoss(BASE)(**batch, epoch=0)
    output.total.backward()
    absent = ["self_training", "mean_entropy"] if base else ["supervised", "supervised_contrastive"]
    for name in ("self_training", "mean_entropy", "supervised", "supervised_contrastive"):
        assert (getattr(output, name) == 0) == (name in absent), name
        assert getattr(output, name).requires_grad
    assert output.novel_per_head.shape == (HEADS,)
    assert batch["projections"].grad.any()
    assert batch["logits"].grad.any()


@pytest.mark.parametrize("is_base", [[True], [False], [True, False]])
def test_smallest_batches(is_base):
    size = len(is_base)
    projections = torch.randn(2 * size, 8, requires_grad=True)
    logits = torch.randn(1, 2 * size, CLASSES, requires_grad=True)
    labels, scores = torch.zeros(size, dtype=torch.long), torch.zeros(size)
    output = AnomalyNcdLoss(BASE)(projections, logits, labels, torch.tensor(is_base), scores, 0)
    output.total.backward()
    assert output.total.isfinite()
    assert projections.grad.isfinite().all()
    assert logits.grad.isfinite().all()


def test_without_contrast_only_the_contrastive_terms_go(batch):
    whole = AnomalyNcdLoss(BASE)(**batch, epoch=3)
    without = AnomalyNcdLoss(BASE, replace(PAPER, contrastive=False))(**(batch | {"projections": None}), epoch=3)
    close(without.total, whole.total - 0.7 * whole.info_nce - 0.3 * whole.supervised_contrastive)
    assert without.info_nce == without.supervised_contrastive == 0
    for name in ("supervised", "self_training", "mean_entropy", "novel_per_head"):
        torch.testing.assert_close(getattr(without, name), getattr(whole, name))
    with pytest.raises(ValueError, match="`projections` are needed for the contrastive terms"):
        AnomalyNcdLoss(BASE)(**(batch | {"projections": None}), epoch=3)


def test_without_base_classes(batch):
    batch["is_base"] = torch.zeros(REGIONS, dtype=torch.bool)
    output = AnomalyNcdLoss(0)(**batch, epoch=0)
    assert output.supervised == 0
    assert output.total.isfinite()


def test_gradients_reach_projections_and_every_head(batch):
    batch["projections"].requires_grad_()
    batch["logits"].requires_grad_()
    AnomalyNcdLoss(BASE)(**batch, epoch=0).total.backward()
    assert batch["projections"].grad.abs().amax(-1).gt(0).all()
    assert batch["logits"].grad.abs().amax(-1).gt(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_under_autocast(batch, dtype):
    half = {name: x.to(dtype) if x.is_floating_point() else x for name, x in batch.items()}
    exact = {name: x.float() if x.is_floating_point() else x for name, x in half.items()}
    loss = AnomalyNcdLoss(BASE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = loss(**half, epoch=49)
    for got, want in zip(output, loss(**exact, epoch=49), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want)


def test_double_precision_is_kept(batch):
    double = {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}
    assert AnomalyNcdLoss(BASE)(**double, epoch=0).total.dtype == torch.float64


def test_wrong_inputs(batch):
    with pytest.raises(ValueError, match="`num_base_classes` must be 0 or more"):
        AnomalyNcdLoss(-1)
    with pytest.raises(ValueError, match="besides the 7 base classes, got 7 columns"):
        AnomalyNcdLoss(CLASSES)(**batch, epoch=0)
    for change in ({"logits": batch["logits"][0]}, {"projections": batch["projections"][1:]}):
        with pytest.raises(ValueError, match="two views of B >= 1 regions"):
            AnomalyNcdLoss(BASE)(**{**batch, **change}, epoch=0)


def test_examples_of_terms():
    torch.testing.assert_close(info_nce(torch.eye(2).repeat(2, 1)).round(decimals=4), torch.tensor(0.5514))
    temperatures = [round(teacher_temperature(epoch), 4) for epoch in (0, 3, 4, 39, 1000)]
    assert temperatures == [0.07, 0.07, 0.0667, 0.04, 0.04]
    assert mean_entropy(torch.eye(4)).abs().round(decimals=4) == 0  # every class once


def test_example_of_anomaly_ncd_loss():
    loss = AnomalyNcdLoss(num_base_classes=1)
    output = loss(
        projections=torch.randn(6, 8),
        logits=torch.randn(2, 6, 4),
        labels=torch.tensor([0, 0, 0]),
        is_base=torch.tensor([True, False, False]),
        scores=torch.tensor([0.0, 0.9, 0.2]),
        epoch=0,
    )
    assert (output.total.shape, output.novel_per_head.shape) == (torch.Size([]), torch.Size([2]))


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
