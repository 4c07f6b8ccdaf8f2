# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_ncd.deploy import Artefact, ArtefactError, load_detector_file
from anomalib_ncd.deploy.detectors import (
    FunctionDetector,
    NetworkDetector,
    as_detector,
    as_map,
    load_artefact_detector,
)
from anomalib_ncd.regions.views import resize_antialiased


class Brightness:
    """A network whose map is the mean of the channels; notes what it was given."""

    def __init__(self, shape=(-1, 3, -1, -1), names=("anomaly_map", "pred_score", "pred_label")):
        self.input_shapes = {"image": shape}
        self.output_names = list(names)
        self.seen = []

    def __call__(self, inputs):
        images = inputs["image"]
        self.seen.append(images)
        maps = images.mean(axis=1, keepdims=True)
        scores = maps.max(axis=(1, 2, 3))
        outputs = {"anomaly_map": maps, "pred_score": scores[:, None], "pred_label": scores[:, None] > 0.5}
        return {name: outputs[name] for name in self.output_names}


def images_of(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


def test_a_function_is_a_detector():
    images = images_of((8, 9), (10, 11))
    found = FunctionDetector(lambda pixels: pixels[None, :, :, 0]).detect(images)
    np.testing.assert_array_equal(found[1], images[1][..., 0])
    whole = np.zeros((2, 2))
    assert [one.shape for one in as_detector(lambda _: whole).detect(images)] == [(2, 2), (2, 2)]


@pytest.mark.parametrize(("shapes", "sizes"), [([(8, 8)] * 3, [2, 2]), ([(8, 8), (9, 8)], [2, 2])])
def test_a_network_that_is_bound_to_a_number_of_images_gets_as_many(shapes, sizes):
    network, images = Brightness(shape=(2, 3, -1, -1)), images_of(*shapes)
    found = NetworkDetector(network).detect(images)
    assert [len(batch) for batch in network.seen] == sizes
    for detection, image in zip(found, images, strict=True):
        np.testing.assert_allclose(detection, image.mean(axis=2) / 255, atol=1e-6)
    assert NetworkDetector(network).detect([]) == NetworkDetector(Brightness()).detect([]) == []


def test_images_of_one_size_go_together():
    network = Brightness()
    images = images_of((8, 8), (8, 8))
    found = NetworkDetector(network).detect(images)
    assert [batch.shape for batch in network.seen] == [(2, 3, 8, 8)]
    np.testing.assert_allclose(found[1], images[1].mean(axis=2) / 255, atol=1e-6)


def test_images_of_two_sizes_go_one_by_one():
    network = Brightness(names=("anomaly_map",))
    found = NetworkDetector(network).detect(images_of((8, 8), (6, 9)))
    assert [batch.shape for batch in network.seen] == [(1, 3, 8, 8), (1, 3, 6, 9)]
    assert [detection.shape for detection in found] == [(8, 8), (6, 9)]


def test_images_are_brought_to_the_size_of_the_network_without_aliasing():
    for network, size in ((Brightness((1, 3, 12, 10)), None), (Brightness(), (12, 10))):
        images = images_of((40, 50), (40, 50))
        NetworkDetector(network, size).detect(images)
        wanted = resize_antialiased(images[0] / 255.0, (12, 10)).transpose(2, 0, 1)
        np.testing.assert_allclose(network.seen[0][0], wanted, atol=1e-6)
    # A network for one image at a time gets one at a time.
    fixed = Brightness((1, 3, 12, 10))
    NetworkDetector(fixed).detect(images_of((12, 10), (12, 10)))
    assert [len(batch) for batch in fixed.seen] == [1, 1]


def test_another_network_is_refused(onnx_artefact):
    with pytest.raises(ArtefactError, match="A detector leads from one image to `anomaly_map`"):
        NetworkDetector(Brightness(names=("pred_score",)))
    with pytest.raises(ArtefactError, match="A detector leads from one image to `anomaly_map`"):
        load_detector_file(onnx_artefact / "encoder.onnx")


def test_an_artefact_without_a_detector(onnx_artefact):
    assert load_artefact_detector(Artefact.load(onnx_artefact)) is None


def test_an_exported_file_runs_with_weights_beside_it(tmp_path):
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 600, 3, padding=1), nn.Conv2d(600, 1, 1)).eval()
    file = tmp_path / "detector.onnx"
    torch.onnx.export(
        network,
        (torch.rand(1, 3, 16, 16),),
        str(file),
        dynamo=True,
        output_names=["anomaly_map"],
        external_data=True,
        verbose=False,
    )
    [image] = images_of((16, 16))
    [detection] = load_detector_file(file, num_threads=1).detect([image])
    with torch.no_grad():
        wanted = network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0, 0]
    np.testing.assert_allclose(detection, wanted.numpy(), atol=1e-4)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no detector"):
        load_detector_file(tmp_path / "nothing.onnx")
    (tmp_path / "model.xml").touch()
    with pytest.raises(FileNotFoundError, match=r"There is no detector .*model\.bin"):
        load_detector_file(tmp_path / "model.xml")
    for name in ("model.ckpt", "model.pt"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=r"must be an \.onnx or \.xml file; a \.pt file runs code"):
            load_detector_file(tmp_path / name)


def test_what_is_no_detector_or_map_is_refused():
    with pytest.raises(TypeError, match="`detector` must be a Detector or a function"):
        as_detector("patchcore")
    with pytest.raises(ValueError, match=r"An anomaly map must have shape \(h, w\), got \(2, 4, 4\)"):
        as_map(np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="must have shape"):
        as_map(np.zeros(4))
