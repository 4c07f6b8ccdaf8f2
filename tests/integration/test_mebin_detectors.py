# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""MEBin behind every image detector of anomalib 2.7 that can be built without a download.

Weights don't matter here, so backbones are built without them where anomalib offers no switch for it. Left out:

- ``WinClip``: its weights come with OpenCLIP, an optional package, and are all there is to it.
- ``AnomalyVFM``: its network exists only as a download.
- ``CFM``: needs depth images and the weights of a point cloud network.
- ``VlmAd``: asks a hosted language model, and yields no maps and takes no post-processor.
"""

import socket
import sys
from dataclasses import dataclass, field
from typing import Any

import anomalib.models.image as detectors
import numpy as np
import pytest
import timm
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.pre_processing import PreProcessor
from torchvision.models import WeightsEnum
from torchvision.transforms.v2 import Resize

from anomalib_ncd.post_processing import MEBin, MEBinBatch
from anomalib_ncd.regions.mebin import binarize

LEFT_OUT = {"AnomalyVFM", "CFM", "VlmAd", "WinClip"}
WITHOUT_MAPS = {"Dfkde", "Ganomaly"}


@dataclass
class Case:
    """Arguments of the smallest useful detector, the image size it takes, and whether it's slow even so."""

    size: int = 64
    slow: bool = False
    init_args: dict[str, Any] = field(default_factory=dict)


def case(size=64, *, slow=False, **init_args):
    return Case(size, slow, init_args)


CASES = {
    "AnomalyDINO": case(56),
    "Cfa": case(backbone="resnet18"),
    "Cflow": case(backbone="resnet18", pre_trained=False, fiber_batch_size=16),
    "Csflow": case(128, cross_conv_hidden_channels=16),
    # Of the two images that it is fitted on there is but one component; a second one is rounding, or singular.
    "Dfkde": case(pre_trained=False, n_pca_components=1),
    "Dfm": case(backbone="resnet18", pre_trained=False),
    "Dinomaly": case(112, encoder_name="vit_small_patch14_reg4_dinov2"),
    "Draem": case(slow=True, dtd_dir="textures"),
    "Dsr": case(128, slow=True),
    "EfficientAd": case(256, slow=True, imagenet_dir="textures", teacher_out_channels=16),
    "Fastflow": case(pre_trained=False),
    "FoundAD": case(112, slow=True),
    "Fre": case(backbone="resnet18", pre_trained=False, input_dim=1024, latent_dim=8),
    "Ganomaly": case(),
    "GeneralAD": case(backbone="vit_tiny_patch16_224", layers=(12,), hidden_dim=64, epochs=1),
    "Glass": case(backbone="resnet18", input_shape=(64, 64), pretrain_embed_dim=64, target_embed_dim=64),
    "InpFormer": case(112, encoder_name="vit_small_patch14_reg4_dinov2"),
    "L2BT": case(112, slow=True),
    "MHPatchcore": case(backbone="resnet18", pre_trained=False),
    "Padim": case(pre_trained=False),
    "Patchcore": case(backbone="resnet18", pre_trained=False),
    "Patchflow": case(backbone="resnet18", pre_trained=False),
    "Rad": case(backbone="vit_small_patch16_dinov3", pre_trained=False),
    "ReverseDistillation": case(backbone="resnet18", pre_trained=False),
    "Stfpm": case(),
    "SuperADD": case(backbone="vit_small_patch16_dinov3", patch_size=64),
    "Supersimplenet": case(128, backbone="resnet18"),
    "Uflow": case(448, backbone="resnet18"),
    "UniNet": case(slow=True),
}


def test_no_detector_is_forgotten():
    classes = [getattr(detectors, name) for name in dir(detectors)]
    names = {cls.__name__ for cls in classes if isinstance(cls, type) and issubclass(cls, AnomalibModule)}
    assert names == CASES.keys() | LEFT_OUT


@pytest.fixture
def no_downloads(monkeypatch):
    """Build backbones without weights, and refuse connections."""
    original = timm.create_model

    def create_model(*args, **kwargs):
        return original(*args, **{**kwargs, "pretrained": False})

    for module in list(sys.modules.values()):
        if getattr(module, "create_model", None) is original:
            monkeypatch.setattr(module, "create_model", create_model)

    def refuse(*args, **kwargs):
        msg = "this test must not download anything"
        raise OSError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_state_dict = torch.nn.Module.load_state_dict
    # Torchvision loads what its weights' enumeration downloads.
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **kwargs: None)
    monkeypatch.setattr(
        torch.nn.Module,
        "load_state_dict",
        lambda self, state, *args, **kwargs: state and load_state_dict(self, state, *args, **kwargs),
    )
    # These two fetch weights of their own when training starts.
    monkeypatch.setattr(detectors.EfficientAd, "prepare_pretrained_model", lambda self: None)
    monkeypatch.setattr(detectors.Dsr, "prepare_pretrained_model", lambda self: None)
    monkeypatch.setattr("anomalib.models.image.dsr.torch_model.DsrModel.load_pretrained_discrete_model_weights", no_op)


def no_op(*args, **kwargs):
    """Stand in for a download."""


def make_detector(name, case, generated, post_processor):
    init_args = {
        key: generated.root / "train" if value == "textures" else value for key, value in case.init_args.items()
    }
    pre_processor = PreProcessor(Resize((case.size, case.size), antialias=True))
    components = {"pre_processor": pre_processor, "post_processor": post_processor, "visualizer": False}
    return getattr(detectors, name)(**init_args, **components)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if case.slow else ()) for name, case in CASES.items()],
)
def test_detector_fits_and_predicts_with_mebin(no_downloads, tmp_path, generated, make_datamodule, name):
    torch.manual_seed(0)
    case = CASES[name]
    model = make_detector(name, case, generated, MEBin(erosion_size=2, min_interval_len=2))
    datamodule = make_datamodule(train_batch_size={"EfficientAd": 1, "Cflow": 4}.get(name, 2))
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": 1}
    options |= {"limit_train_batches": 1, "limit_val_batches": 1, "limit_predict_batches": 1}
    # The larger detectors have checkpoints of a gigabyte, which nothing here reads.
    engine = Engine(default_root_dir=tmp_path, callbacks=[ModelCheckpoint(save_top_k=0)], **options)
    engine.fit(model, datamodule=datamodule)
    found = []
    model.model.register_forward_hook(lambda network, inputs, output: found.append(output))
    batches = engine.predict(model, datamodule=datamodule)
    assert [len(batch) for batch in batches] == [3]
    if name in WITHOUT_MAPS:
        assert all(batch.pred_mask is None and batch.pred_label is not None for batch in batches)
        return
    score_range = model.post_processor.settings.score_range
    assert score_range is not None
    for batch, output in zip(batches, found, strict=True):
        assert isinstance(batch, MEBinBatch)
        for raw, item in zip(output.anomaly_map, batch, strict=True):
            expected = binarize(raw.squeeze().numpy(), score_range, min_interval_len=2, erosion_size=2)
            np.testing.assert_array_equal(item.pred_mask.numpy(), expected.mask)
            assert int(item.num_anomalies) == expected.num_components
            assert float(item.threshold) == expected.threshold
