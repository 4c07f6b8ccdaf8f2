# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.deploy import TorchInferencer
from anomalib.deploy.export import CompressionType
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from torch.nn import functional as F

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import ModelInputs
from anomalib_ncd.models import export
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.models.export import OUTPUT_NAMES, RegionClassifier, calibration_inputs
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.settings import TrainingSettings

COMPARED = ["test_vit compared with normal", "resnet10t compared with normal"]
BACKBONES = ["test_vit", "resnet10t", "resnet10t plain", *COMPARED]


def build_model(kind, **arguments):
    torch.manual_seed(0)
    backbone, described_by = kind.split()[0], "frozen_features"
    if "plain" in kind or "normal" in kind:
        described_by = "plain_features" if "plain" in kind else "normal_residuals"
    model = AnomalyNcd(
        backbone, pretrained=False, describer=described_by, num_novel_classes=4, image_size=224, **arguments
    )
    describer, (views, masks, whole, _) = model.eval().model.describer, build_inputs()
    if described_by == "normal_residuals":
        patches, share = describer._region_patches(views.flip(3), masks)
        describer.normal_patches.fit(patches[share[..., 0] > 0])
        describer.novelty.fit([describer._whole_patches(whole.flip(3))], num_images=3)
    model.make_heads(ClassSlots(("base_line", "base_square"), 4))
    model.model.best_head.fill_(1)
    with torch.no_grad():
        references = describer(views.flip(2), *build_inputs()[1:]).rejection_feature
    model.model.rejection.fit(references, torch.arange(len(references)))
    return model.eval()


def build_inputs(count=5):
    """Views, masks (full, empty, a half, a speck, soft noise), and the three images that they lie in."""
    generator = torch.Generator().manual_seed(1)
    views = torch.randint(0, 256, (5, 3, 224, 224), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(5, 1, 224, 224)
    masks[0] = 1
    masks[2, :, :112] = 1
    masks[3, 0, 50, 60] = 1
    masks[4] = torch.rand(1, 224, 224, generator=generator)
    whole = views[:3].flip(3) // torch.tensor([1, 2, 5], dtype=torch.uint8).view(3, 1, 1, 1)
    return views[:count], masks[:count], whole, torch.tensor([2, 0, 0, 1, 2])[:count]


def named(model, inputs):
    """Inputs as an exported graph takes them."""
    return {
        name: part.numpy() for name, part in zip(RegionClassifier.of(model.model).input_names, inputs, strict=False)
    }


def eager_outputs(model, views, masks, whole=None, image_index=None):
    """Written out from the parts of the model, each region alone, not from the class under test."""
    describer, rows = model.model.describer, []
    for row in range(len(views)):
        image = () if whole is None else (whole[image_index[row]][None], torch.tensor([0]))
        rows.append(describer(views[row : row + 1], masks[row : row + 1], *image))
    features, references, _ = (torch.cat(part).detach() for part in zip(*rows, strict=True))
    with torch.no_grad():
        logits = model.model.heads(features)[1]
        standard = (F.normalize(references, dim=1) - model.model.rejection.centre) / model.model.rejection.scale
        longer = torch.cat([standard, torch.full((len(standard), 1), standard.shape[1] ** 0.5)], dim=1)
        nearest = F.cosine_similarity(longer[:, None], model.model.rejection.references[None], dim=2).amax(dim=1)
        return (logits[:, 2:] / 0.1).softmax(dim=1), features, nearest


@pytest.fixture(scope="module", params=["resnet10t", "resnet10t plain", "short_vit compared with normal"])
def exported(request, short_vit, tmp_path_factory):
    """A model, its ONNX file, and the engine that exported it."""
    pytest.importorskip("onnxscript", reason="export to ONNX needs onnxscript")
    model = build_model(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=folder)
    return model, engine.export(model, "onnx"), engine


def test_the_plugin_is_still_a_direct_subclass_whose_export_is_its_own():
    assert AnomalyNcd.__base__ is AnomalibModule
    assert "to_onnx" in vars(AnomalyNcd)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_graph_is_what_the_model_computes(backbone):
    model = build_model(backbone)
    inputs = build_inputs()
    with torch.no_grad():
        outputs = RegionClassifier.of(model.model)(*inputs)
    for found, wanted in zip(outputs, eager_outputs(model, *inputs), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert outputs._fields == OUTPUT_NAMES


def test_onnx_equals_eager_for_any_number_of_regions(exported):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    model, file, engine = exported
    assert file.relative_to(engine.trainer.default_root_dir).as_posix() == "weights/onnx/model.onnx"
    session = runtime.InferenceSession(str(file))
    shapes = {entry.name: entry.shape[1:] for entry in session.get_inputs()}
    whole = {"whole_image": [3, 224, 224], "image_index": []} if model.model.describer.needs_whole_images else {}
    assert shapes == {"image": [3, 224, 224], "mask": [1, 224, 224]} | whole
    for count in (1, 5):
        inputs = build_inputs(count)
        found = session.run(list(OUTPUT_NAMES), named(model, inputs))
        for one, wanted in zip(found, eager_outputs(model, *inputs), strict=True):
            np.testing.assert_allclose(one, wanted.numpy(), atol=1e-4)


def test_openvino_equals_eager(exported, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    model, file, _ = exported
    openvino.save_model(openvino.convert_model(file), tmp_path / "model.xml", compress_to_fp16=False)
    compiled = openvino.compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 5):
        inputs = build_inputs(count)
        found = compiled(named(model, inputs))
        for name, wanted in zip(OUTPUT_NAMES, eager_outputs(model, *inputs), strict=True):
            np.testing.assert_allclose(found[name], wanted.numpy(), atol=1e-4)


def test_the_engine_exports_to_openvino_in_half_precision(exported, tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    model, file, engine = exported

    def copy_instead_of_exporting_again(self, folder, *args, **kwargs):
        target = tmp_path / "model.onnx"
        target.write_bytes(file.read_bytes())
        return target

    monkeypatch.setattr(AnomalyNcd, "to_onnx", copy_instead_of_exporting_again)
    half = engine.export(model, "openvino", export_root=tmp_path, compression_type=CompressionType.FP16)
    assert half.with_suffix(".bin").stat().st_size < 0.6 * file.stat().st_size
    compiled = openvino.compile_model(half, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = build_inputs()
    found = compiled(named(model, inputs))[OUTPUT_NAMES[0]]
    np.testing.assert_allclose(found, eager_outputs(model, *inputs)[0].numpy(), atol=0.02)


def test_torch_export_loads_in_anomalibs_inferencer(tmp_path, monkeypatch):
    model = build_model("test_vit")
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path)
    file = engine.export(model, "torch")
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inputs = build_inputs()
    with torch.no_grad():
        found = TorchInferencer(file, device="cpu").model(*inputs)
    for one, wanted in zip(found, eager_outputs(model, *inputs), strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-5, rtol=1e-5)


def test_prototypes_have_norm_one_and_are_those_of_the_best_head():
    model = build_model("test_vit")
    wanted = F.normalize(model.model.heads.weight[1, 2:].detach(), dim=-1)
    torch.testing.assert_close(RegionClassifier.of(model.model).prototypes, wanted)


def test_another_input_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`input_size` must be \(224, 224\).* got \(256, 256\)"):
        build_model("test_vit").to_onnx(tmp_path, input_size=(256, 256))


def test_a_model_without_classes_is_refused(tmp_path):
    model = AnomalyNcd(backbone="test_vit", pretrained=False, training=TrainingSettings(mask_layers=3))
    for to_format in (model.to_torch, model.to_onnx):
        with pytest.raises(ValueError, match="The model was never trained, so it has no classes"):
            to_format(tmp_path)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "module_available", lambda name: False)
    model = build_model("test_vit")
    with pytest.raises(ModuleNotFoundError, match="`pip install onnxscript`"):
        model.to_onnx(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package nncf: `pip install 'anomalib-ncd\[int8\]'`"):
        model._compress_ov_model(None, CompressionType.INT8_PTQ)


def test_calibration_takes_the_regions_of_a_datamodule(tiny_run):
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps)
    assert set(calibration_inputs(datamodule, number=1)[0]) == {"image", "mask"}
    datamodule.prepare_for(ModelInputs(64, whole_images=True))
    inputs = calibration_inputs(datamodule, number=7)
    assert len(inputs) == 7
    views, masks = datamodule.test_dataloader().dataset[6].image, datamodule.test_dataloader().dataset[6].region_mask
    np.testing.assert_array_equal(inputs[0]["image"], views[:1].numpy())
    np.testing.assert_array_equal(inputs[0]["mask"], masks[:1].numpy())
    assert inputs[0]["whole_image"].shape == (1, 3, 64, 64)
    assert inputs[6]["image_index"].tolist() == [0]
    assert len(calibration_inputs(datamodule)) == len(datamodule.region_table())


def test_calibration_needs_regions():
    with pytest.raises(TypeError, match="give an NcdDataModule as `datamodule`, got None"):
        calibration_inputs(None)
    with pytest.raises(TypeError, match="give an NcdDataModule"):
        calibration_inputs(SimpleNamespace())


def test_int8_of_weights_and_activations(exported, tiny_run):
    pytest.importorskip("nncf", reason="needs the extra [int8]")
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    model, file, _ = exported
    if "resnet10t" in str(file):
        pytest.skip("one backbone will do: quantisation takes long")
    regions = RegionSettings(method="mebin", erosion_size=3)  # good images have a region as well
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, regions=regions)
    quantised = model._compress_ov_model(openvino.convert_model(file), CompressionType.INT8_PTQ, datamodule)
    compiled = openvino.compile_model(quantised, "CPU", export.EXACT)
    inputs = calibration_inputs(datamodule)
    names = RegionClassifier.of(model.model).input_names
    found = np.concatenate([compiled({name: one[name] for name in names})[OUTPUT_NAMES[0]] for one in inputs])
    stacked = [torch.from_numpy(np.concatenate([one[name] for one in inputs])) for name in names]
    stacked[3:] = [torch.arange(len(inputs))] * len(stacked[3:])  # each region with an image of its own
    wanted = eager_outputs(model, *stacked)[0].numpy()
    assert np.abs(found - wanted).max() > 0
    np.testing.assert_allclose(found, wanted, atol=0.35)


def constant_network(openvino, row):
    """A network that says the same of every region."""
    operators = openvino.opset13
    image = operators.parameter([-1, 3, 224, 224], np.uint8, name="image")
    mask = operators.parameter([-1, 1, 224, 224], np.float32, name="mask")
    result = operators.result(operators.constant(np.array([row], np.float32)))
    for node, name in ((image, "image"), (mask, "mask"), (result, OUTPUT_NAMES[0])):
        node.output(0).get_tensor().set_names({name})
    return openvino.Model([result], [image, mask], "constant")


@pytest.mark.parametrize(("found", "level", "kept"), [([0, 1, 0], "INFO", "100.0"), ([1, 0, 0], "WARNING", "0.0")])
def test_accuracy_control_counts_the_regions_that_keep_their_class(monkeypatch, tiny_run, caplog, found, level, kept):
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    agreements, quantised = [], constant_network(openvino, found)

    def control(model, calibration, validation, agreement, max_drop, **options):
        assert len(calibration) == len(validation) == 12
        assert max_drop == 0.05
        compiled = openvino.compile_model(model, "CPU", export.EXACT)
        agreements.extend([agreement(compiled, validation), agreement(compiled, validation[2:5])])
        return quantised

    nncf = SimpleNamespace(Dataset=lambda source, _=None: source, quantize_with_accuracy_control=control)
    monkeypatch.setitem(sys.modules, "nncf", nncf)
    monkeypatch.setattr(export, "module_available", lambda name: True)
    monkeypatch.setattr("anomalib.models.components.base.export_mixin.mixin.module_available", lambda name: True)
    caplog.set_level("INFO", export.logger.name)
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps)
    network, control_type = constant_network(openvino, [0.1, 0.8, 0.1]), CompressionType.INT8_ACQ
    assert build_model("test_vit")._compress_ov_model(network, control_type, datamodule, max_drop=0.05) is quantised
    assert agreements == [(1.0, [1.0] * 12), (1.0, [1.0] * 3)]
    [record] = [record for record in caplog.records if "keep their class" in record.message]
    assert record.levelname == level
    assert f"Of 12 regions, {kept}% keep their class in INT8" in record.message
