# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd import MEBin
from anomalib_ncd.models.encoders import offline
from anomalib_ncd.models.encoders.offline import build_offline_backbone
from anomalib_ncd.models.offline_detector import build_offline_detector


@pytest.fixture(scope="module")
def wheel():
    return pytest.importorskip(offline.WHEEL_MODULE, reason='needs pip install "anomalib-ncd[offline]"')


@torch.no_grad()
def test_its_features_are_those_of_the_trained_network(wheel):
    detector = build_offline_detector(image_size=(64, 96)).eval()
    images = torch.rand(2, 3, 80, 80)
    prepared = detector.pre_processor(images)
    assert prepared.shape == (2, 3, 64, 96)
    assert prepared.min() < -0.8
    found = detector.model.feature_extractor(prepared)
    network = build_offline_backbone().eval()
    expected = network.blocks[:2](network.bn1(network.conv_stem(prepared)))
    torch.testing.assert_close(found["blocks.1"], expected)
    torch.testing.assert_close(found["blocks.2"], network.blocks[2](expected))


def test_arguments_reach_the_detector(wheel):
    post_processor = MEBin(score_range=(0, 1))
    detector = build_offline_detector(coreset_sampling_ratio=0.125, post_processor=post_processor)
    assert detector.post_processor is post_processor
    assert detector.coreset_sampling_ratio == 0.125


def test_without_the_wheel_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(offline, "WHEEL_MODULE", "no_such_wheel")
    with pytest.raises(RuntimeError, match=r"anomalib-ncd\[offline\]"):
        build_offline_detector()
