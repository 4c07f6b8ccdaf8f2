# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A small anomalib detector that is fitted in seconds, also in places without a model hub."""

from __future__ import annotations

import torch
from anomalib.models import Patchcore
from anomalib.post_processing import PostProcessor
from torch import Tensor
from torchvision.transforms.v2 import Normalize

from anomalib_ncd.models.encoders.offline import OFFLINE_NETWORK, build_offline_backbone

MAX_SAMPLE = 20_000
"""Most patches that the memory is chosen from, drawn at random."""

MAX_MEMORY = 2_000
"""Most patches in the memory."""


class SmallPatchcore(Patchcore):
    """anomalib's Patchcore, whose memory is at most 2,000 patches, farthest from each other, of 20,000 random ones.

    anomalib's own choice projects all patches to some 300 dimensions and takes hours for 200 photographs. Checkpoints
    are those of :class:`anomalib.models.Patchcore` and load as such.
    """

    def fit(self) -> None:
        """Choose the memory from the patches of the good images."""
        patches = torch.vstack(self.model.embedding_store)
        self.model.embedding_store.clear()
        order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))
        sample = patches[order[:MAX_SAMPLE].to(patches.device)]
        self.model.memory_bank = sample[farthest_rows(sample, MAX_MEMORY)]


def farthest_rows(rows: Tensor, count: int) -> Tensor:
    """Choose rows greedily, each the farthest from those before it, beginning with the first.

    Args:
        rows: ``(N, D)`` float.
        count: Number of rows to choose; all where there are fewer.

    Returns:
        Their indices.

    Example:
        >>> farthest_rows(torch.tensor([[0.0], [1.0], [9.0], [4.0]]), 3)
        tensor([0, 2, 3])
    """
    squares = rows.square().sum(dim=1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = [0]
    while len(chosen) < min(count, len(rows)):
        last = chosen[-1]
        nearest = torch.minimum(nearest, squares - 2 * (rows @ rows[last]) + squares[last])
        nearest[last] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen, device=rows.device)


def build_offline_detector(post_processor: PostProcessor | bool = True) -> SmallPatchcore:
    """Build a small Patchcore with the weights of the extra ``[offline]``, to be fitted with anomalib's ``Engine``.

    Args:
        post_processor: ``True`` for anomalib's own, or another such as :class:`~anomalib_ncd.MEBin`.

    Returns:
        The detector, not fitted, on two scales of EfficientNet-Lite0; without evaluator and visualizer.

    Raises:
        RuntimeError: If the extra is not installed.

    Example:
        >>> detector = build_offline_detector()  # doctest: +SKIP
        >>> Engine().fit(detector, datamodule=Folder("parts", root="parts", normal_dir="good"))  # doctest: +SKIP
    """
    weights = build_offline_backbone().state_dict()
    detector = SmallPatchcore(
        backbone=OFFLINE_NETWORK,
        layers=("blocks.2", "blocks.4"),
        pre_trained=False,
        num_neighbors=1,
        post_processor=post_processor,
        evaluator=False,
        visualizer=False,
    )
    features = detector.model.feature_extractor.feature_extractor
    features.load_state_dict({name: weights[name] for name in features.state_dict()})
    _take_imagenet_range(features, detector)
    return detector


def _take_imagenet_range(features: torch.nn.Module, detector: Patchcore) -> None:
    """Let a network that was trained on images from -1 to 1 take those of anomalib's default transform.

    So a checkpoint needs no transform of its own, which anomalib doesn't keep in it.
    """
    normalize = next(step for step in detector.pre_processor.transform.transforms if isinstance(step, Normalize))
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalize.mean, normalize.std))
    # 2 x - 1 for x = std y + mean, so weights times 2 std, and 2 mean - 1 off the mean of what follows.
    weight = features.conv_stem.weight.data
    features.bn1.running_mean -= (weight * (2 * mean - 1)).sum(dim=(1, 2, 3))
    weight *= 2 * std
