# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import shutil

import numpy as np
import pytest
import torch

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.deploy import AnomalyClassifier, Artefact
from anomalib_ncd.deploy.detectors import load_artefact_detector
from anomalib_ncd.deploy.packing import build
from anomalib_ncd.deploy.packing.build import build_artefact, classifier_of_run
from anomalib_ncd.models.checkpoints import save_model
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.settings import TrainingSettings


def test_the_manifest_says_what_the_run_says(run_folder, torch_artefact):
    manifest = Artefact.load(torch_artefact).manifest
    settings = json.loads((run_folder / "regions" / "settings.json").read_text())
    assert list(manifest.score_range) == settings["score_range"]
    assert manifest.regions == RegionSettings(method="mebin", padding_ratio=0.2, erosion_size=3)
    assert settings == {"score_range": settings["score_range"], **manifest.regions.to_dict()}
    assert manifest.class_names == ("normal", "dark", "bright", "dark")
    assert manifest.image_size == 224
    assert manifest.merging_temperature is None
    assert manifest.rejection.false_reject_rate == 0.2
    similarities = manifest.rejection.similarities
    assert len(similarities) > 10
    assert list(similarities) == sorted(similarities)
    assert similarities[0] < manifest.rejection.threshold < similarities[-1]
    assert manifest.detector is None


def test_names_that_were_given_later_count(run_folder, tmp_path, function_detector):
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "class_names.json").write_text('{"names": {"class_1": "scratch"}}')
    classifier = classifier_of_run(tmp_path / "run", function_detector)
    assert classifier.class_names == ("normal", "scratch", "class_2", "class_3")


def test_the_rate_can_be_changed_later(run_folder, torch_artefact, function_detector):
    before = Artefact.load(torch_artefact).manifest.rejection
    stricter = classifier_of_run(run_folder, function_detector, false_reject_rate=0.5).manifest.rejection
    assert stricter.false_reject_rate == 0.5
    assert stricter.threshold > before.threshold
    with pytest.raises(ValueError, match="`false_reject_rate` must be above 0"):
        build_artefact(run_folder, runtime="torch", false_reject_rate=0)


def test_the_detector_goes_along_as_a_file(run_folder, onnx_artefact, tmp_path):
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    network = torch.nn.Conv2d(3, 1, 1).eval()
    file = tmp_path / "some.onnx"
    torch.onnx.export(
        network,
        (torch.rand(1, 3, 16, 16),),
        str(file),
        dynamo=True,
        output_names=["anomaly_map"],
        external_data=False,
        verbose=False,
    )
    output = tmp_path / "packed.zip"
    build_artefact(run_folder, detector=file, detector_input_size=(16, 16), runtime="torch").save(output)
    artefact = Artefact.load(output)
    assert artefact.manifest.detector.files == ("detector.onnx",)
    assert load_artefact_detector(artefact).input_size == (16, 16)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    result = AnomalyClassifier.load(output).predict(pixels)
    assert result.class_name in artefact.manifest.class_names
    (tmp_path / "some.onnx.data").touch()
    with pytest.raises(ValueError, match=r"has its weights in some\.onnx\.data"):
        build_artefact(run_folder, detector=file, runtime="torch")


def test_what_runs_code_is_not_packed(run_folder, tmp_path):
    with pytest.raises(ValueError, match=r"a \.pt file runs code when it is loaded"):
        build_artefact(run_folder, detector=tmp_path / "detector.pt", runtime="torch")


def test_missing_files_are_named(run_folder, tmp_path, function_detector):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        build_artefact(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        classifier_of_run(tmp_path / "nothing.ckpt", function_detector)
    with pytest.raises(FileNotFoundError, match=r"or \.xml next to its \.bin"):
        build_artefact(run_folder, detector=tmp_path / "detector.xml", runtime="torch")


@pytest.mark.parametrize(
    ("runtime", "compression", "extra"), [("onnx", None, "export"), ("openvino", "int8_ptq", "export,int8")]
)
def test_what_an_export_lacks_is_said_at_once(run_folder, monkeypatch, runtime, compression, extra):
    monkeypatch.setattr(build, "find_spec", lambda name: None if name in {"onnxscript", "nncf"} else name)
    with pytest.raises(ModuleNotFoundError, match=rf"needs onnxscript.*: `pip install 'anomalib-ncd\[{extra}\]'`"):
        build_artefact(run_folder, runtime=runtime, compression=compression)


def test_options_that_do_not_go_together(run_folder, tmp_path):
    with pytest.raises(ValueError, match="`compression` is OpenVINO's, got 'fp16' for 'onnx'"):
        build_artefact(run_folder, compression="fp16")
    with pytest.raises(FileExistsError, match="exists already"):
        build_artefact(run_folder, runtime="torch").save(tmp_path)


def test_a_model_that_never_saw_regions_is_refused(tmp_path):
    model = AnomalyNcd(
        backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    )
    model.make_heads(ClassSlots((), 3))
    save_model(model, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="doesn't say how regions are cut: it was never fitted"):
        build_artefact(tmp_path)


def test_a_checkpoint_alone_says_how_regions_are_cut(run_folder, tmp_path, function_detector):
    shutil.copy(run_folder / "model.ckpt", tmp_path / "model.ckpt")
    classifier = classifier_of_run(tmp_path / "model.ckpt", function_detector)
    assert classifier.manifest.regions.padding_ratio == 0.2
