# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import sys

import numpy as np
import pytest

from anomalib_ncd.deploy import Artefact, ArtefactError
from anomalib_ncd.deploy.runtimes import OnnxNetwork, OpenVinoNetwork, load_network


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
