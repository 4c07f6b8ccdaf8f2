# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A run, what is packed of it, and detectors that know the maps of the tiny data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.deploy import Artefact
from anomalib_ncd.deploy.packing.artefact import NetworkEntry
from anomalib_ncd.deploy.packing.build import build_artefact
from anomalib_ncd.models.checkpoints import save_model
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.encoded_regions import rows_of
from anomalib_ncd.regions.settings import RegionSettings

CLASS_NAMES = ["normal", "dark", "bright", "dark"]


class SavedMaps:
    """Reads the map of a tiny image off the file that was made with it; counts the calls."""

    def __init__(self):
        self.batch_sizes = []

    def detect(self, images, paths):
        self.batch_sizes.append(len(images))
        return [np.load(map_of(path)) for path in paths]


def map_of(path):
    return Path(str(path).replace("/images/", "/maps/")).with_suffix(".npy")


def grey_map(pixels):
    """A detector for any image of the tiny kind: how far a pixel is from the grey of the plate."""
    return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120


@pytest.fixture(scope="session")
def run_folder(tiny_run, short_vit, tmp_path_factory):
    """What a run leaves, without the training: random heads on a random encoder."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(3)
    rate = {"false_reject_rate": 0.2}
    model = AnomalyNcd(backbone=short_vit, pretrained=False, image_size=224, num_novel_classes=4, **rate)
    model.make_heads(ClassSlots(("base_line", "base_square"), 4))
    model.class_names = CLASS_NAMES
    model.model.best_head.fill_(2)
    regions = RegionSettings(method="mebin", padding_ratio=0.2, erosion_size=3)
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, regions=regions, work_dir=folder)
    datamodule.region_table()
    encoded = model.eval().encode(datamodule)
    _, _, references, image_index = rows_of(encoded)
    model.take_regions(datamodule, references, image_index)
    others = (image_index < 6) | (image_index >= 12)  # as if there had been no lines
    model.model.rejection.fit(references[others], image_index[others])
    save_model(model, folder / "model.ckpt")
    return folder


@pytest.fixture(scope="session")
def predicted(run_folder, tiny_run, tmp_path_factory):
    """What ``Engine.predict`` says of each tiny image, by path."""
    model = AnomalyNcd.load_from_checkpoint(run_folder / "model.ckpt")
    regions = RegionSettings(method="mebin", padding_ratio=0.2, erosion_size=3)
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, regions=regions)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=tmp_path_factory.mktemp("engine"), **options)
    return engine.predict(model, datamodule=datamodule)


@pytest.fixture(scope="session")
def onnx_artefact(run_folder, tmp_path_factory):
    """Folder of the run packed for ONNX Runtime, without a detector."""
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    folder = tmp_path_factory.mktemp("packed") / "onnx"
    build_artefact(run_folder).save(folder)
    return folder


@pytest.fixture(scope="session")
def torch_artefact(run_folder, tmp_path_factory):
    """Zip of the run packed for PyTorch, without a detector."""
    file = tmp_path_factory.mktemp("packed") / "torch.zip"
    build_artefact(run_folder, runtime="torch").save(file)
    return file


@pytest.fixture(scope="session")
def openvino_artefact(onnx_artefact, tmp_path_factory):
    """The ONNX artefact with its encoder in OpenVINO, as the export would make it of the same graph."""
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    folder = tmp_path_factory.mktemp("packed")
    network = openvino.convert_model(onnx_artefact / "encoder.onnx")
    openvino.save_model(network, folder / "encoder.xml", compress_to_fp16=False)
    contents = {name: (folder / name).read_bytes() for name in ("encoder.xml", "encoder.bin")}
    manifest = Artefact.load(onnx_artefact).manifest
    entry = type(manifest.encoder)("openvino", tuple(contents), manifest.encoder.settings)
    values = {**manifest.__dict__, "encoder": entry}
    Artefact.create(type(manifest)(**values), contents).save(folder / "openvino")
    return folder / "openvino"


@pytest.fixture(scope="session")
def artefact(onnx_artefact, tmp_path_factory):
    """The packed run with a detector in it: how far a pixel is from the grey of the plate."""
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    info, make = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    constant = onnx.helper.make_tensor
    nodes = [
        make("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        make("Sub", ["mean", "grey"], ["difference"]),
        make("Abs", ["difference"], ["distance"]),
        make("Mul", ["distance", "scale"], ["anomaly_map"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "detector",
        [info("image", 1, ["n", 3, "h", "w"])],
        [info("anomaly_map", 1, ["n", 1, "h", "w"])],
        [constant("axes", 7, [1], [1]), constant("grey", 1, [], [120 / 255]), constant("scale", 1, [], [255 / 120])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    contents = {
        "encoder.onnx": (onnx_artefact / "encoder.onnx").read_bytes(),
        "detector.onnx": model.SerializeToString(),
    }
    manifest = replace(Artefact.load(onnx_artefact).manifest, detector=NetworkEntry("onnx", ("detector.onnx",)))
    return Artefact.create(manifest, contents).save(tmp_path_factory.mktemp("light") / "parts.zip")


@pytest.fixture
def saved_maps():
    """A detector that knows the maps of the tiny images."""
    return SavedMaps()


@pytest.fixture
def function_detector():
    """A detector that is a plain function and knows any image."""
    return grey_map
