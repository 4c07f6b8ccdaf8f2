# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A detector with MEBin, exported by anomalib in each of its formats."""

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import ExportType, OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from anomalib.models import Padim

from anomalib_ncd.post_processing import MEBin, mebin_from_exported

SIZE = 64


@pytest.fixture(scope="module")
def fitted(make_datamodule, tmp_path_factory):
    """Engine and detector, its settings in a file, and the predictions of Engine.predict."""
    folder = tmp_path_factory.mktemp("fitted")
    datamodule = make_datamodule()
    torch.manual_seed(0)
    model = Padim(
        pre_trained=False,
        pre_processor=Padim.configure_pre_processor((SIZE, SIZE)),
        post_processor=MEBin(erosion_size=3),
        visualizer=False,
    )
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    engine = Engine(default_root_dir=folder, **options)
    engine.fit(model, datamodule=datamodule)
    batches = engine.predict(model, datamodule=datamodule)
    items = [item for batch in batches for item in batch]
    assert any(item.pred_mask.any() for item in items)
    model.post_processor.settings.save(folder / "mebin.json")
    return engine, model, folder / "mebin.json", items


@pytest.fixture(scope="module")
def onnx_file(fitted, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    engine, model, _, _ = fitted
    return engine.export(model, ExportType.ONNX, export_root=tmp_path_factory.mktemp("onnx"), input_size=(SIZE, SIZE))


def assert_agrees(result, item):
    """Runtimes compute the map a little differently, which may flip pixels right at the threshold."""
    assert result.num_components == int(item.num_anomalies)
    assert result.threshold == pytest.approx(float(item.threshold), rel=1e-6)
    assert (result.mask != item.pred_mask.numpy()).mean() < 0.002


def test_torch_export_gives_the_same_masks(fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    engine, model, _, items = fitted
    path = engine.export(model, ExportType.TORCH, export_root=tmp_path)
    inferencer = TorchInferencer(path, device="cpu")
    for item in items:
        prediction = inferencer.predict(item.image_path)
        # A batch of one, so that the map may differ in its last digit from that of a batch of three.
        assert (prediction.pred_mask[0] != item.pred_mask).float().mean() < 0.002
        assert float(prediction.anomaly_map.max()) <= 1
        with torch.no_grad():
            exported = inferencer.model(read_image(item.image_path, as_tensor=True)[None])
            original = model.eval()(read_image(item.image_path, as_tensor=True)[None])
        assert torch.equal(exported.pred_mask, original.pred_mask)


def test_compiled_model_gives_the_same_masks(fitted):
    _, model, _, items = fitted
    images = torch.stack([read_image(item.image_path, as_tensor=True) for item in items])
    with torch.no_grad():
        expected = model.eval()(images)
        compiled = torch.compile(model, backend="eager")(images)
    assert torch.equal(compiled.pred_mask, expected.pred_mask)
    assert torch.equal(compiled.anomaly_map, expected.anomaly_map)


def test_onnx_yields_the_raw_map_which_the_function_finishes(fitted, onnx_file):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    _, model, settings, items = fitted
    session = runtime.InferenceSession(str(onnx_file))
    names = [output.name for output in session.get_outputs()]
    assert names == ["pred_score", "pred_label", "anomaly_map"]
    for item in items:
        image = read_image(item.image_path, as_tensor=True)[None].numpy()
        outputs = dict(zip(names, session.run(None, {session.get_inputs()[0].name: image}), strict=True))
        assert float(outputs["pred_score"].squeeze()) == pytest.approx(float(item.pred_score), abs=1e-3)
        assert bool(outputs["pred_label"].squeeze()) == bool(item.pred_label)
        assert_agrees(mebin_from_exported(outputs["anomaly_map"], settings)[0], item)
        with torch.no_grad():
            raw = model.eval().model(model.pre_processor(torch.from_numpy(image))).anomaly_map
        np.testing.assert_allclose(outputs["anomaly_map"], raw.numpy(), rtol=1e-3, atol=1e-3)


def test_openvino_yields_the_raw_map_which_the_function_finishes(fitted, onnx_file, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.chdir(tmp_path)  # the inferencer makes a cache folder where it runs
    monkeypatch.setattr(Padim, "to_onnx", lambda *args, **kwargs: onnx_file)  # which anomalib begins with
    engine, model, settings, items = fitted
    path = engine.export(model, ExportType.OPENVINO, export_root=tmp_path, input_size=(SIZE, SIZE))
    inferencer = OpenVINOInferencer(path, device="CPU", config={"INFERENCE_PRECISION_HINT": "f32"})
    for item in items:
        prediction = inferencer.predict(item.image_path)
        assert prediction.pred_mask is None
        assert_agrees(mebin_from_exported(prediction.anomaly_map, settings)[0], item)
