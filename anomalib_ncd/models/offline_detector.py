# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A small anomalib detector that is fitted in seconds, also in places without a model hub."""

import math
from typing import Any

import torch
from anomalib.data import Batch
from anomalib.models import AnomalibModule, Patchcore
from anomalib.post_processing import PostProcessor
from torch import Tensor
from torchvision.transforms.v2 import Normalize

from anomalib_ncd.models.encoders.hub import OFFLINE_NETWORK, build_offline_backbone

LAYERS = ("blocks.2", "blocks.4")  # of EfficientNet-Lite0, at an eighth and a sixteenth of the image's side
MAX_SAMPLE = 20_000  # patches that the memory is chosen from, drawn at random
MAX_MEMORY = 2_000  # patches in the memory


class SmallPatchcore(Patchcore):
    """anomalib's Patchcore, whose memory is at most 2,000 patches, farthest from each other, of 20,000 random ones.

    anomalib's own choice projects all patches to some 300 dimensions and takes hours for 200 photographs. Checkpoints
    are those of :class:`anomalib.models.Patchcore` and load as such.
    """

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> Any:
        """Gather the patches of a batch, and keep its share of the sample."""
        loss: Any = super().training_step(batch, *args, **kwargs)  # type: ignore[func-returns-value]
        gathered: list[Tensor] = self.model.embedding_store  # type: ignore[assignment]
        count, patches = math.ceil(MAX_SAMPLE / self.trainer.num_training_batches), gathered[-1]
        order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(len(gathered)))
        gathered[-1] = patches[order[:count].to(patches.device)]
        return loss

    def fit(self) -> None:
        """Choose the memory from the sample."""
        sample = torch.vstack(self.model.embedding_store)
        self.model.embedding_store.clear()
        self.model.memory_bank = sample[farthest_rows(sample, MAX_MEMORY)]


def farthest_rows(rows: Tensor, count: int) -> Tensor:
    """Choose `count` rows greedily, each the farthest from those before it, beginning with the first; by index."""
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

    It takes two scales of EfficientNet-Lite0, and has no evaluator and visualizer; `post_processor` may be another than
    anomalib's, such as :class:`~anomalib_ncd.MEBin`.
    """
    detector = SmallPatchcore(
        backbone=OFFLINE_NETWORK,
        layers=LAYERS,
        pre_trained=False,
        num_neighbors=1,
        post_processor=post_processor,
        evaluator=False,
        visualizer=False,
    )
    give_offline_weights(detector)
    return detector


def give_offline_weights(detector: AnomalibModule) -> None:
    """Fill a detector on features of ``tf_efficientnet_lite0`` with the weights of the extra ``[offline]``, in place.

    They were trained on images from -1 to 1. The first layer is changed to take those of anomalib's default transform,
    as anomalib keeps no transform in a checkpoint.
    """
    weights = build_offline_backbone().state_dict()
    features: Any = detector.get_submodule("model.feature_extractor.feature_extractor")
    features.load_state_dict({name: weights[name] for name in features.state_dict()})
    pre_processor: Any = detector.pre_processor
    normalize = next(step for step in pre_processor.transform.transforms if isinstance(step, Normalize))
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalize.mean, normalize.std))
    # 2 x - 1 for x = std y + mean, so weights times 2 std, and 2 mean - 1 off the mean of what follows.
    weight = features.conv_stem.weight.data
    features.bn1.running_mean -= (weight * (2 * mean - 1)).sum(dim=(1, 2, 3))
    weight *= 2 * std
