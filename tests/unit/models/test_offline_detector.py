# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd import MEBin
from anomalib_ncd.models.encoders import hub
from anomalib_ncd.models.encoders.hub import build_offline_backbone
from anomalib_ncd.models.offline_detector import build_offline_detector, farthest_rows


@pytest.fixture(scope="module")
def wheel():
    return pytest.importorskip(hub.WHEEL_MODULE, reason='needs pip install "anomalib-ncd[offline]"')


@torch.no_grad()
def test_its_features_are_those_of_the_trained_network(wheel):
    detector = build_offline_detector().eval()
    images = torch.rand(2, 3, 256, 256)
    found = detector.model.feature_extractor(detector.pre_processor(images))
    network = build_offline_backbone().eval()
    expected = network.blocks[:3](network.bn1(network.conv_stem(2 * images - 1)))
    inner = (..., slice(9, -9), slice(9, -9))  # at the border, black and grey padding differ
    torch.testing.assert_close(found["blocks.2"][inner], expected[inner], rtol=1e-3, atol=1e-3)
    assert (found["blocks.4"] - network.blocks[3:5](expected)).abs().mean() < 0.05


def test_arguments_reach_the_detector(wheel):
    post_processor = MEBin(score_range=(0, 1))
    assert build_offline_detector(post_processor).post_processor is post_processor


def test_without_the_wheel_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(hub, "WHEEL_MODULE", "no_such_wheel")
    with pytest.raises(RuntimeError, match=r"anomalib-ncd\[offline\]"):
        build_offline_detector()


def test_rows_are_chosen_as_by_brute_force():
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    chosen = [0]
    while len(chosen) < 12:
        chosen.append(int(torch.cdist(rows, rows[chosen]).amin(dim=1).argmax()))
    assert farthest_rows(rows, 12).tolist() == chosen
    assert sorted(farthest_rows(rows, 99).tolist()) == list(range(40))
    assert len(farthest_rows(torch.ones(6, 2), 4).unique()) == 4
