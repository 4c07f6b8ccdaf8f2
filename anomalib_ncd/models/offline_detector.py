# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""An anomalib detector for places without a model hub."""

from __future__ import annotations

from anomalib.models import Patchcore
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_ncd.models.encoders.offline import build_offline_backbone


def build_offline_detector(
    image_size: tuple[int, int] = (256, 256),
    coreset_sampling_ratio: float = 0.01,
    post_processor: PostProcessor | bool = True,
) -> Patchcore:
    """Build a small Patchcore with the weights of the extra ``[offline]``, to be fitted with anomalib's ``Engine``.

    Args:
        image_size: Height and width that images are resized to, in pixels.
        coreset_sampling_ratio: Share of the good images' patches that is kept. Time and memory grow with it.
        post_processor: ``True`` for anomalib's own, or another such as :class:`~anomalib_ncd.MEBin`.

    Returns:
        The detector, not fitted, on two scales of EfficientNet-Lite0; without evaluator and visualizer.

    Raises:
        RuntimeError: If the extra is not installed.

    Example:
        >>> detector = build_offline_detector(coreset_sampling_ratio=0.1)  # doctest: +SKIP
        >>> Engine().fit(detector, datamodule=Folder("parts", root="parts", normal_dir="good"))  # doctest: +SKIP
    """
    weights = build_offline_backbone().state_dict()
    detector = Patchcore(
        backbone="tf_efficientnet_lite0",
        layers=("blocks.1", "blocks.2"),
        pre_trained=False,
        coreset_sampling_ratio=coreset_sampling_ratio,
        num_neighbors=1,
        # The weights were trained on images from -1 to 1.
        pre_processor=PreProcessor(Compose([Resize(image_size, antialias=True), Normalize([0.5] * 3, [0.5] * 3)])),
        post_processor=post_processor,
        evaluator=False,
        visualizer=False,
    )
    features = detector.model.feature_extractor.feature_extractor
    features.load_state_dict({name: weights[name] for name in features.state_dict()})
    return detector
