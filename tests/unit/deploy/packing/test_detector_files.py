# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore

from anomalib_ncd.data.detector_maps import LightningDetector, predict_anomaly_maps
from anomalib_ncd.deploy import Artefact, load_detector_file
from anomalib_ncd.deploy.detectors import FunctionDetector, load_artefact_detector
from anomalib_ncd.deploy.line.folder_run import MapFolder
from anomalib_ncd.deploy.packing.build import build_artefact
from anomalib_ncd.deploy.packing.detector_files import check_detector, export_raw_detector
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files, list_images
from anomalib_ncd.synthetic.plates import generate_dataset

SIZE = 64


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Engine, a fitted Padim, images larger than its input, and the maps that discovery would use."""
    folder = tmp_path_factory.mktemp("fitted")
    counts = {"num_train_good": 4, "num_test_good": 1, "num_per_kind": 2, "num_mixed": 0}
    generated = generate_dataset(folder / "data", kinds=["hole"], size=96, **counts)
    datamodule = Folder(
        name="generated",
        root=generated.root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/hole",
        train_batch_size=4,
        eval_batch_size=3,
        num_workers=0,
        val_split_mode="same_as_test",
    )
    torch.manual_seed(0)
    model = Padim(pre_trained=False, pre_processor=Padim.configure_pre_processor((SIZE, SIZE)), visualizer=False)
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    engine = Engine(default_root_dir=folder, **options)
    engine.fit(model, datamodule=datamodule)
    records = list_images(generated.root / "test")
    map_paths = predict_anomaly_maps(model, records, folder / "maps", device="cpu")
    return engine, model, [record.path for record in records], map_paths


@pytest.fixture(scope="module")
def raw_onnx(fitted, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    contents, size = export_raw_detector(fitted[1])
    assert size == (SIZE, SIZE)
    file = tmp_path_factory.mktemp("raw") / "detector.onnx"
    file.write_bytes(contents)
    return file


def detect(detector, paths):
    return detector.detect([read_image(path) for path in paths])


def assert_maps_equal(detections, map_paths, rtol=1e-3):
    for detection, path in zip(detections, map_paths, strict=True):
        wanted = np.load(path)
        np.testing.assert_allclose(detection, wanted, rtol=rtol, atol=rtol * wanted.max())


def test_a_lightning_detector_gives_the_maps_of_discovery(fitted):
    _, model, paths, map_paths = fitted
    detector = LightningDetector(model)
    detections = detect(detector, paths)
    assert_maps_equal(detections, map_paths, rtol=1e-4)
    assert model.post_processor is not None  # it was only taken off for the moment
    one = detect(detector, paths[:1])
    assert_maps_equal(one, map_paths[:1], rtol=1e-4)


def test_images_of_other_sizes_go_one_by_one(fitted):
    _, model, paths, map_paths = fitted
    detector = LightningDetector(model)
    detector._resize = None  # as with detectors that take any size
    images = [read_image(paths[0]), read_image(paths[1])[:80]]
    found = detector.detect(images)
    assert_maps_equal(found[:1], map_paths[:1], rtol=0.2)  # resized a second time is all that differs
    assert len(found) == 2


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_packed_detector_gives_the_maps_of_discovery(fitted, raw_onnx, run_folder, runtime, monkeypatch):
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime")
    _, model, paths, map_paths = fitted
    monkeypatch.setattr(
        "anomalib_ncd.deploy.packing.detector_files.export_raw_detector",
        lambda _: (raw_onnx.read_bytes(), (SIZE, SIZE)),
    )
    names = ("encoder.onnx",) if runtime == "onnx" else ("encoder.xml", "encoder.bin")
    monkeypatch.setattr("anomalib_ncd.deploy.packing.build._encoder_files", lambda *_: dict.fromkeys(names, b""))
    artefact = build_artefact(run_folder, detector=model, runtime=runtime)
    assert isinstance(artefact, Artefact)
    detector = load_artefact_detector(artefact, num_threads=1)
    # Images are brought to 64 pixels as in training: without aliasing, which the exported resize would not avoid.
    assert detector.input_size == (SIZE, SIZE)
    detections = detect(detector, paths)
    assert_maps_equal(detections, map_paths)


def test_anomalibs_own_export_normalises_and_is_found_out(fitted, raw_onnx, tmp_path):
    pytest.importorskip("onnxruntime")
    engine, model, paths, map_paths = fitted
    peaks = [float(np.load(path).max()) for path in map_paths]
    score_range = (min(peaks), max(peaks))
    assert check_detector(load_detector_file(raw_onnx, input_size=(SIZE, SIZE)), paths, map_paths, score_range) < 0.01
    normalising = engine.export(model, ExportType.ONNX, export_root=tmp_path, input_size=(SIZE, SIZE))
    detector = load_detector_file(normalising)
    [detection] = detect(detector, paths[:1])
    assert detection.max() <= 1
    with pytest.raises(ValueError, match="are in other units"):
        check_detector(detector, paths, map_paths, score_range)


def test_a_detector_that_is_traced_for_a_number_of_images_takes_them_one_by_one(fitted, tmp_path):
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pre_processor = Patchcore.configure_pre_processor((32, 32))
    model = Patchcore("resnet18", layers=["layer1"], pre_trained=False, pre_processor=pre_processor, num_neighbors=1)
    model.model.memory_bank = torch.rand(5, 64, generator=torch.Generator().manual_seed(0))
    contents, _ = export_raw_detector(model)
    (tmp_path / "detector.onnx").write_bytes(contents)
    packed = load_detector_file(tmp_path / "detector.onnx", input_size=(32, 32))
    for found, wanted in zip(detect(packed, fitted[2]), detect(LightningDetector(model), fitted[2]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_exported_is_named(fitted):
    model = fitted[1]
    kept = model.pre_processor.transform
    model.pre_processor.transform = None
    try:
        with pytest.raises(ValueError, match="Padim does not say which input size it has"):
            export_raw_detector(model)
    finally:
        model.pre_processor.transform = kept


@pytest.fixture
def images_and_maps(tiny_run):
    images = list(find_files(tiny_run.images, IMAGE_SUFFIXES))
    maps = MapFolder(tiny_run.anomaly_maps, tiny_run.images)
    return images, [maps.find(image) for image in images]


def test_the_run_s_own_maps_agree(images_and_maps, tiny_run):
    images, paths = images_and_maps
    own = MapFolder(tiny_run.anomaly_maps, tiny_run.images)
    assert check_detector(own, images, paths, (0.1, 0.9)) == 0


def test_a_map_of_another_size_is_compared_at_the_run_s(images_and_maps):
    images, paths = images_and_maps

    class Coarse:
        def detect(self, inputs, files):
            return [np.load(paths[images.index(file)])[::2, ::2] for file in files]

    assert 0 < check_detector(Coarse(), images, paths, (0.1, 0.9)) < 0.1


def test_other_units_are_refused(images_and_maps):
    images, paths = images_and_maps
    normalised = FunctionDetector(lambda pixels: np.full(pixels.shape[:2], 0.5))
    with pytest.raises(ValueError, match=r"are in other units\. Was it exported with a post-processor that normalises"):
        check_detector(normalised, images, paths, (0.1, 0.9))
    with pytest.raises(ValueError, match="differ from the run's by nan"):
        check_detector(FunctionDetector(lambda p: np.full(p.shape[:2], np.nan)), images, paths, (0.1, 0.9))
