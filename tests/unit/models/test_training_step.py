# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""One step of training with the paper's constants against an oracle that is written out from the paper's rules."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.data.batches import RegionViewBatch
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.settings import PAPER

NUM_BASE, NUM_NOVEL, NUM_HEADS, MASK_LAYERS = 2, 3, 4, 3
LABELS = [0, 1, 0, 0, 0]
IS_BASE = [True, True, True, False, False]
SCORES = [1.0, 1.0, 1.0, 0.2, 0.9]


@pytest.fixture
def model():
    torch.manual_seed(0)
    training = replace(PAPER, mask_layers=MASK_LAYERS)
    model = AnomalyNcd("test_vit", pretrained=False, num_novel_classes=NUM_NOVEL, image_size=224, training=training)
    model.make_heads(ClassSlots(("dent", "hole"), NUM_NOVEL))
    model.trainer = Trainer(max_epochs=50, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    model.log = lambda *_, **__: None
    return model.train()


def batch_of(numbers, side=224):
    """Two random views of some of five regions; the mask of the fourth covers no patch."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 5, 3, side, side), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(2, 5, 1, side, side)
    for number in (0, 1, 2, 4):
        masks[0, number, :, 20 * number : 20 * number + 70, 30:150] = 1
        masks[1, number, :, 40:120, 16 * number : 16 * number + 90] = 1
    return RegionViewBatch(
        region_index=torch.tensor(numbers),
        label=torch.tensor(LABELS)[numbers],
        is_base=torch.tensor(IS_BASE)[numbers],
        score=torch.tensor(SCORES)[numbers],
        image=images[:, numbers],
        mask=masks[:, numbers],
    )


def feature(vit, pixels, mask):
    """CLS of one view: in the last blocks it looks at itself and at patches that the mask covers by half or more."""
    size = vit.patch_embed.patch_size[0]
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(pixels[None])))
    seen = torch.ones(tokens.shape[1], dtype=torch.bool)
    per_row = mask.shape[1] // size
    for patch in range(per_row**2):
        top, left = patch // per_row * size, patch % per_row * size
        seen[vit.num_prefix_tokens + patch] = mask[0, top : top + size, left : left + size].mean() >= 0.5
    for index, block in enumerate(vit.blocks):
        attention, count = block.attn, tokens.shape[1]
        parts = attention.qkv(block.norm1(tokens)).reshape(count, 3, attention.num_heads, -1).permute(1, 2, 0, 3)
        query, key, value = attention.q_norm(parts[0]), attention.k_norm(parts[1]), parts[2]
        scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
        if index >= len(vit.blocks) - MASK_LAYERS:
            scores[:, 0, ~seen] = -torch.inf
        mixed = attention.proj(attention.norm((scores.softmax(-1) @ value).transpose(0, 1).reshape(1, count, -1)))
        tokens = tokens + block.ls1(mixed)
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return vit.norm(tokens)[0, 0]


def cross_entropy(target, logits):
    """Of one row."""
    return -(target * (logits / 0.1 - torch.logsumexp(logits / 0.1, dim=0))).sum()


def contrast(projections, positives, temperature):
    """Mean over anchors of the mean over their positives of -log of the softmax over all others."""
    unit = projections / projections.norm(dim=1, keepdim=True)
    terms = []
    for anchor in range(len(unit)):
        others = [other for other in range(len(unit)) if other != anchor]
        similarity = unit[others] @ unit[anchor] / temperature
        own = [-(similarity[others.index(one)] - torch.logsumexp(similarity, dim=0)) for one in positives[anchor]]
        terms.append(sum(own) / len(own))
    return sum(terms) / len(terms)


def pseudo_label(logits, score, temperature=0.07):
    """The teacher's opinion of one view, drawn towards *normal* where the detector's score is low."""
    probabilities = (logits.detach() / temperature).softmax(dim=0)
    probabilities[:NUM_BASE] = 0
    probabilities = probabilities / probabilities.sum()
    weight = max(0.0, 0.5 - score)
    normal = torch.eye(NUM_BASE + NUM_NOVEL)[NUM_BASE]
    return (1 - weight) * probabilities + weight * normal


def head_losses(logits, numbers):
    """Cross-entropy, self-training and mean-entropy of one head, from logits (2, B, C)."""
    base = [row for row, number in enumerate(numbers) if IS_BASE[number]]
    novel = [row for row, number in enumerate(numbers) if not IS_BASE[number]]
    one_hot = torch.eye(logits.shape[2])
    supervised = [cross_entropy(one_hot[LABELS[numbers[row]]], logits[view, row]) for view in (0, 1) for row in base]
    training = [
        cross_entropy(pseudo_label(logits[1 - view, row], SCORES[numbers[row]]), logits[view, row])
        for view in (0, 1)
        for row in novel
    ]
    mean = torch.stack([(logits[view, row] / 0.1).softmax(dim=0) for view in (0, 1) for row in novel]).mean(dim=0)
    entropy = math.log(len(mean)) + (mean * mean.log()).sum()
    return sum(supervised) / len(supervised), sum(training) / len(training), entropy


def total_loss(network, views, masks, numbers):
    """The paper's objective over two views of each region."""
    vit, count = network.describer.encoder.backbone, len(numbers)
    features = torch.stack([feature(vit, views[v, row], masks[v, row]) for v in (0, 1) for row in range(count)])
    projections = network.projector.mlp(features)
    unit = features / features.norm(dim=1, keepdim=True)
    per_head = []
    for weight in network.heads.weight:
        logits = unit @ (weight / weight.norm(dim=1, keepdim=True)).T
        per_head.append(head_losses(logits.unflatten(0, (2, count)), numbers))
    supervised, training, entropy = (sum(terms) / NUM_HEADS for terms in zip(*per_head, strict=True))
    info_nce = contrast(projections, [[(view + count) % (2 * count)] for view in range(2 * count)], 1.0)
    rows = [row for row in range(2 * count) if IS_BASE[numbers[row % count]]]
    classes = [LABELS[numbers[row % count]] for row in rows]
    same = [[b for b in range(len(rows)) if b != a and classes[b] == classes[a]] for a in range(len(rows))]
    of_base = contrast(projections[rows], same, 0.07)
    return 0.7 * (training + 4 * entropy) + 0.3 * supervised + 0.7 * info_nce + 0.3 * of_base


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4], [3, 1, 4]])
def test_a_step_is_the_papers(model, numbers):
    oracle, batch = copy.deepcopy(model.model), batch_of(numbers)
    optimizer = model.configure_optimizers()["optimizer"]
    loss = model.training_step(batch, 0)
    loss.backward()
    optimizer.step()

    views = model.model.describer.normalised(batch.image)
    expected = total_loss(oracle, views, batch.mask, numbers)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    expected.backward()
    moved = 0
    for (name, found), parameter in zip(model.model.named_parameters(), oracle.parameters(), strict=True):
        wanted = parameter.detach()
        if parameter.requires_grad:
            decay = 5e-5 if parameter.ndim > 1 else 0.0
            wanted = wanted - 0.003 * (parameter.grad + decay * wanted)  # the first step of momentum is the gradient
            moved += 1
        torch.testing.assert_close(
            found.detach(), wanted, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert moved > 10


@pytest.mark.parametrize("numbers", [[0, 1], [3, 4], [2]])
def test_batches_of_one_kind_are_skipped(model, numbers):
    assert model.training_step(batch_of(numbers), 0) is None
    model.on_train_epoch_end()  # chooses no head where nothing was learnt
    assert model.model.best_head == 0
    model.make_heads(ClassSlots((), NUM_NOVEL))  # without base classes, there is one kind alone
    assert model.training_step(batch_of([3, 4]), 0).isfinite()


def test_the_rate_and_the_momentum_are_the_papers(model):
    [matrices, vectors] = model.configure_optimizers()["optimizer"].param_groups
    assert (matrices["lr"], matrices["momentum"], matrices["weight_decay"]) == (0.003, 0.9, 5e-5)
    assert vectors["weight_decay"] == 0.0
