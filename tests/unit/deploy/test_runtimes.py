# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.deploy import Artefact, ArtefactError
from anomalib_ncd.deploy.runtimes import (
    OnnxNetwork,
    OpenVinoNetwork,
    TorchNetwork,
    _rebuild,
    check_encoder,
    load_encoder,
    load_network,
)
from anomalib_ncd.models.export import RegionClassifier


@pytest.mark.parametrize(("fixture", "runtime"), [("onnx_artefact", "onnx"), ("openvino_artefact", "openvino")])
def test_a_network_says_what_goes_in_and_out(fixture, runtime, request):
    artefact = Artefact.load(request.getfixturevalue(fixture))
    network = load_network(runtime, artefact.contents_of(artefact.manifest.encoder), num_threads=1)
    assert network.input_shapes == {"image": (-1, 3, 224, 224), "mask": (-1, 1, 224, 224)}
    assert network.output_names == [
        "class_probabilities",
        "region_feature",
        "neighbour_similarity",
    ]
    inputs = {"image": np.zeros((2, 3, 224, 224), np.uint8), "mask": np.ones((2, 1, 224, 224), np.float32)}
    first = network(inputs)
    network({"image": inputs["image"] + 99, "mask": inputs["mask"]})
    # What a call returned does not change with the next one.
    np.testing.assert_array_equal(first["class_probabilities"], network(inputs)["class_probabilities"])


def test_an_onnx_file_can_be_loaded_from_its_place(onnx_artefact):
    assert OnnxNetwork(onnx_artefact / "encoder.onnx").output_names[0] == "class_probabilities"


def test_what_is_no_network_is_refused():
    pytest.importorskip("onnxruntime")
    with pytest.raises(ArtefactError, match="ONNX Runtime can't load the network"):
        OnnxNetwork(b"nothing")
    pytest.importorskip("openvino")
    with pytest.raises(ArtefactError, match="OpenVINO can't load the network"):
        OpenVinoNetwork([b"nothing", b""])
    with pytest.raises(ValueError, match="`runtime` must be 'onnx' or 'openvino' here, got 'torch'"):
        load_network("torch", [])


@pytest.mark.parametrize(("runtime", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_runtime_is_named(runtime, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
        load_network(runtime, [b"", b""])


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    views = rng.integers(0, 256, (3, 3, 224, 224), dtype=np.uint8)
    return views, (rng.random((3, 1, 224, 224)) > 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def eager(run_folder, inputs):
    model = AnomalyNcd.load_from_checkpoint(run_folder / "model.ckpt")
    with torch.no_grad():
        outputs = RegionClassifier.of(model.model)(*(torch.from_numpy(array) for array in inputs))
    return {name: output.numpy() for name, output in outputs._asdict().items()}


def named(views, masks):
    return {"image": views, "mask": masks}


@pytest.mark.parametrize("fixture", ["onnx_artefact", "openvino_artefact", "torch_artefact"])
def test_each_runtime_equals_eager(fixture, request, inputs, eager):
    encoder = load_encoder(Artefact.load(request.getfixturevalue(fixture)), num_threads=1)
    for name, found in encoder(named(*inputs)).items():
        wanted = eager[name]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("fixture", ["onnx_artefact", "openvino_artefact", "torch_artefact"])
def test_a_region_does_not_depend_on_its_batch(fixture, request, inputs):
    encoder = load_encoder(Artefact.load(request.getfixturevalue(fixture)))
    together = encoder(named(*inputs))["class_probabilities"]
    alone = [
        encoder(named(views[None], masks[None]))["class_probabilities"][0] for views, masks in zip(*inputs, strict=True)
    ]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_another_network_is_refused():
    other = SimpleNamespace(input_shapes={"input": (1, 3, 8, 8)}, output_names=["anomaly_map"])
    with pytest.raises(ArtefactError, match="The encoder must lead from"):
        check_encoder(other)


def test_the_torch_encoder_leaves_training_mode(run_folder):
    classifier = RegionClassifier.of(AnomalyNcd.load_from_checkpoint(run_folder / "model.ckpt").model).train()
    assert not TorchNetwork(classifier).classifier.training


def test_mean_and_standard_deviation_of_a_network_are_kept_apart(torch_artefact):
    """Those of the tiny network are equal; those of most others are not."""
    artefact = Artefact.load(torch_artefact)
    state = load_safetensors(artefact.contents_of(artefact.manifest.encoder)[0])
    state["describer.pixel_mean"] += torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    changed = Artefact.create(artefact.manifest, {"encoder.safetensors": save_safetensors(state)})
    loaded = load_encoder(changed).classifier
    for name in ("pixel_mean", "pixel_std"):
        torch.testing.assert_close(getattr(loaded.describer, name), state[f"describer.{name}"])


def test_prototypes_of_another_width_are_refused(torch_artefact):
    artefact = Artefact.load(torch_artefact)
    state = load_safetensors(artefact.contents_of(artefact.manifest.encoder)[0])
    state["prototypes"] = state["prototypes"][:, :-1].contiguous()
    changed = Artefact.create(artefact.manifest, {"encoder.safetensors": save_safetensors(state)})
    with pytest.raises(ArtefactError, match="are of two versions of anomalib_ncd; discover and pack again"):
        load_encoder(changed)


def test_settings_that_do_not_fit_the_weights_are_refused(torch_artefact):
    artefact = Artefact.load(torch_artefact)
    artefact.manifest.encoder.settings["backbone"] = "resnet10t"
    with pytest.raises(ArtefactError, match="weights and settings don't make an encoder"):
        load_encoder(artefact)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"backbone": "hf-hub:someone/something"},
        {"backbone": "../test_vit"},
        {"backbone": "test_vit", "weights": "x"},
    ],
)
def test_settings_of_anything_but_a_known_encoder_are_refused(torch_artefact, settings):
    artefact = Artefact.load(torch_artefact)
    entry = artefact.manifest.encoder
    changed = {**entry.settings, **settings} if settings else {}
    with pytest.raises(ArtefactError, match="An encoder is built from"):
        _rebuild(artefact.contents_of(entry), changed)
