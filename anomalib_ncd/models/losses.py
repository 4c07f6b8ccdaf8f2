# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Losses and optimiser of AnomalyNCD (Huang et al., CVPR 2025), over two augmented views of each region.

Views are stacked view-major: rows ``0 ... N-1`` are the first views of the N regions, rows ``N ... 2N-1`` the second.
The functions compute in the precision they are given; ``AnomalyNcdLoss`` gives them at least single precision.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from anomalib_ncd.regions.classes.prediction import LOGIT_TEMPERATURE
from anomalib_ncd.settings import PAPER, TrainingSettings

FINAL_LEARNING_RATE = 1e-3


def info_nce(projections: Tensor, temperature: float = 1.0) -> Tensor:
    """Contrast each view with the other view of its region, against all other views.

    Projections (2N, P) are view-major, of any norm.
    """
    regions = torch.arange(len(projections) // 2, device=projections.device)
    return supervised_contrastive(projections, regions, temperature)


def supervised_contrastive(projections: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """Contrast each view with all views of its class, against all other views; the mean over the positives of each.

    Projections (2N, P) of labelled regions are view-major, of any norm.

    Example:
        >>> supervised_contrastive(torch.ones(4, 3), torch.tensor([0, 0])).round(decimals=4)  # log 3
        tensor(1.0986)
    """
    unit = F.normalize(projections, dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_probs = similarity.log_softmax(dim=-1).masked_fill(itself, 0.0)
    classes = labels.repeat(2)
    positives = (classes[:, None] == classes[None, :]) & ~itself
    return -((log_probs * positives).sum(-1) / positives.sum(-1)).mean()


def teacher_temperature(
    epoch: int, warmup_epochs: int = 40, start: float = 0.07, end: float = 0.04, repeats: int = 4
) -> float:
    """Temperature of the pseudo-labels: it falls in steps of ``repeats`` epochs until ``warmup_epochs``, then stays."""
    last_step = warmup_epochs // repeats - 1
    step = epoch // repeats
    return end if step >= last_step else start + (end - start) * step / last_step


def normal_weights(scores: Tensor, threshold: float | None = 0.5) -> Tensor:
    """How much regions of scores (N,) are taught to be normal: ``max(0, threshold - score)``; ``None``: not at all."""
    return torch.zeros_like(scores) if threshold is None else (threshold - scores).clamp(min=0.0)


def self_training(logits: Tensor, num_base: int, weights: Tensor, teacher_temp: float) -> Tensor:
    """Cross-entropy of each view with the pseudo-label that the other view gives.

    The pseudo-label is a softmax over the novel classes alone, mixed with certainty of the first novel class, which
    means *normal*, by the region's weight. ``logits`` (2N, C) are of novel regions by one head, view-major, N at least
    1; the first ``num_base`` columns are base classes. ``weights`` (N,) of *normal* are in [0, 1]; ``teacher_temp``
    divides the logits that make pseudo-labels, and no gradient flows there.

    Example:
        >>> self_training(torch.zeros(4, 5), 1, torch.zeros(2), teacher_temp=0.07).round(decimals=4)  # log 5
        tensor(1.6094)
    """
    novel = (logits.detach()[:, num_base:] / teacher_temp).softmax(dim=-1)
    normal = F.one_hot(torch.zeros_like(weights, dtype=torch.long), novel.shape[1])
    weight = weights.repeat(2)[:, None]
    pseudo_label = (1 - weight) * novel + weight * normal.repeat(2, 1)
    from_other_view = pseudo_label.roll(len(weights), dims=0)
    log_probs = (logits / LOGIT_TEMPERATURE).log_softmax(dim=-1)[:, num_base:]
    return -(from_other_view * log_probs).sum(-1).mean()


def mean_entropy(logits: Tensor) -> Tensor:
    """How far the classes of logits (M, C) by one head are from being used equally: ``log C - H(mean prediction)``."""
    # In logarithms: a class that nobody predicts must not make the gradient infinite.
    log_probs = (logits / LOGIT_TEMPERATURE).log_softmax(dim=-1)
    log_mean = log_probs.logsumexp(dim=0) - math.log(len(logits))
    return (log_mean.exp() * (log_mean + math.log(logits.shape[1]))).sum()


def supervised(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of both views, logits (2N, C) view-major, with the classes (N,) of their regions."""
    return F.cross_entropy(logits / LOGIT_TEMPERATURE, labels.repeat(2))


class LossOutput(NamedTuple):
    """The weighted total, the only one meant for ``backward``, and its terms before their weights, all scalars.

    Terms of the logits are means over heads. ``novel_per_head`` (num_heads,), without gradient, is self-training plus
    weighted mean-entropy: it tells the best head.
    """

    total: Tensor
    info_nce: Tensor
    supervised_contrastive: Tensor
    supervised: Tensor
    self_training: Tensor
    mean_entropy: Tensor
    novel_per_head: Tensor


class AnomalyNcdLoss(nn.Module):
    """The whole objective, in at least single precision even under autocast.

    With ``s = supervised_weight`` the total is ``(1 - s) * (self_training + mean_entropy_weight * mean_entropy)
    + s * supervised + (1 - s) * info_nce + s * supervised_contrastive``. A batch without base regions has 0 for the
    supervised terms, one without novel regions 0 for self-training and mean-entropy.

    Where ``prototypes`` tell novel from base classes from the start, mean-entropy spreads the novel regions over the
    novel classes alone; over all classes in the paper. Without ``contrastive`` its two terms are 0. The first
    ``num_base_classes`` columns of the logits are base classes, 0 or more, else ``ValueError``; ``settings`` have
    weights and threshold of the terms, by default the paper's.
    """

    def __init__(self, num_base_classes: int, settings: TrainingSettings = PAPER) -> None:
        super().__init__()
        if num_base_classes < 0:
            msg = f"`num_base_classes` must be 0 or more, got {num_base_classes}."
            raise ValueError(msg)
        self.num_base_classes, self.settings = num_base_classes, settings

    def forward(
        self, projections: Tensor | None, logits: Tensor, labels: Tensor, is_base: Tensor, scores: Tensor, epoch: int
    ) -> LossOutput:
        """Compute the loss of a batch of B regions, at least one.

        Projections (2B, P) and cosine similarities ``logits`` (num_heads, 2B, C) are view-major; there are no
        projections for a loss without contrast. ``is_base`` (B,) bool says which regions are labelled. Classes
        ``labels`` (B,) are read for these only, ``scores`` (B,) in [0, 1] for the others only; ``epoch``, from 0,
        decides the temperature of the pseudo-labels.

        ``ValueError`` if shapes do not match or there is no class for the novel regions.
        """
        self._check(projections, logits, is_base)
        with torch.autocast(logits.device.type, enabled=False):
            logits, scores = _at_least_single(logits), _at_least_single(scores)
            contrast, base_contrast = self._contrastive_terms(projections, logits, labels, is_base)
            base = self._base_term(logits, labels, is_base)
            training, entropy = self._novel_terms(logits, is_base, scores, epoch)
            novel = training + self.settings.mean_entropy_weight * entropy
            base_weight, novel_weight = self.settings.supervised_weight, 1 - self.settings.supervised_weight
            total = novel_weight * (novel.mean() + contrast) + base_weight * (base + base_contrast)
        return LossOutput(total, contrast, base_contrast, base, training.mean(), entropy.mean(), novel.detach())

    def _contrastive_terms(
        self, projections: Tensor | None, logits: Tensor, labels: Tensor, is_base: Tensor
    ) -> tuple[Tensor, Tensor]:
        """InfoNCE of all regions and the supervised contrast of the base regions."""
        nothing = logits.sum() * 0.0
        if projections is None or not self.settings.contrastive:
            return nothing, nothing
        projections = _at_least_single(projections)
        contrast = info_nce(projections)
        if not is_base.any():
            return contrast, nothing
        return contrast, supervised_contrastive(projections[is_base.repeat(2)], labels[is_base])

    def _base_term(self, logits: Tensor, labels: Tensor, is_base: Tensor) -> Tensor:
        if not is_base.any():
            return logits.sum() * 0.0
        of_base, labels = logits[:, is_base.repeat(2)], labels[is_base]
        return torch.stack([supervised(head, labels) for head in of_base]).mean()

    def _novel_terms(self, logits: Tensor, is_base: Tensor, scores: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Self-training and mean-entropy of the novel regions, each (num_heads,)."""
        if is_base.all():
            nothing = logits.sum(dim=(1, 2)) * 0.0
            return nothing, nothing
        weights = normal_weights(scores[~is_base], self.settings.normal_threshold)
        heads, temperature = logits[:, ~is_base.repeat(2)], teacher_temperature(epoch)
        training = [self_training(head, self.num_base_classes, weights, temperature) for head in heads]
        first = 0 if self.settings.prototypes == "random" else self.num_base_classes
        balance = [mean_entropy(head[:, first:]) for head in heads]
        return torch.stack(training), torch.stack(balance)

    def _check(self, projections: Tensor | None, logits: Tensor, is_base: Tensor) -> None:
        views = 2 * len(is_base)
        if projections is None and self.settings.contrastive:
            msg = "`projections` are needed for the contrastive terms, got None; set `contrastive=False` to go without."
            raise ValueError(msg)
        others = projections is not None and len(projections) != views
        if logits.ndim != 3 or logits.shape[1] != views or others or views == 0:
            shape = None if projections is None else tuple(projections.shape)
            got = f"{shape} and {tuple(logits.shape)} for B = {len(is_base)}"
            wanted = "`projections` (2B, P) and `logits` (num_heads, 2B, C) must hold two views of B >= 1 regions"
            msg = f"{wanted}, got {got}."
            raise ValueError(msg)
        if logits.shape[2] <= self.num_base_classes:
            wanted = f"`logits` must have columns for novel classes besides the {self.num_base_classes} base classes"
            msg = f"{wanted}, got {logits.shape[2]} columns."
            raise ValueError(msg)


def _at_least_single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def build_optimizer(
    parameters: Iterable[nn.Parameter], learning_rate: float = 0.003, momentum: float = 0.9, weight_decay: float = 5e-5
) -> SGD:
    """SGD without weight decay of vectors such as biases, and without frozen parameters; in one pass on a CPU."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    on_cpu = all(parameter.device.type == "cpu" for parameter in trainable)
    return SGD(groups, lr=learning_rate, momentum=momentum, fused=on_cpu or None)


def relative_learning_rate(epoch: int, num_epochs: int) -> float:
    """Learning rate of an epoch as a share of the initial one: a cosine from 1 to a thousandth, where it stays.

    A function of the epoch alone: torch's own cosine would take the old number of epochs from a checkpoint, and its
    rate would rise again when training goes on for longer.
    """
    progress = min(epoch / max(num_epochs, 1), 1.0)
    return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * (1 + math.cos(math.pi * progress)) / 2
