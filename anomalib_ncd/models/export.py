# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Export of AnomalyNCD through anomalib's ``Engine.export``: encoder and chosen head as one graph.

MEBin, crops and region merging count and sort, which no graph does; they are in ``anomalib_ncd.regions``, and
:class:`~anomalib_ncd.deploy.AnomalyClassifier` puts both together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.deploy.export import CompressionType, ExportType
from anomalib.models.components import AnomalibModule
from lightning_utilities.core.imports import module_available
from torch import Tensor, nn

from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.models.clustering.clustering import unit_rows
from anomalib_ncd.models.describer import Describer
from anomalib_ncd.models.rejection import RegionRejection
from anomalib_ncd.models.torch_model import AnomalyNcdModel
from anomalib_ncd.regions.classes.prediction import LOGIT_TEMPERATURE

logger = logging.getLogger(__name__)

INPUT_NAMES = ("image", "mask")
WHOLE_IMAGE_NAMES = ("whole_image", "image_index")  # further inputs, where classes were found with normal images
OUTPUT_NAMES = ("class_probabilities", "region_feature", "neighbour_similarity")
OPSET = 18
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # as the deployed classifier runs; OpenVINO's default may be bfloat16
NUM_CALIBRATION_REGIONS = 300  # what NNCF recommends


class RegionOutput(NamedTuple):
    """What the exported graph yields for R regions."""

    class_probabilities: Tensor  # (R, K) float, probability of each novel class; slot 0 is normal
    region_feature: Tensor  # (R, D) float, the mask-guided feature
    neighbour_similarity: Tensor  # (R,) float in [-1, 1], cosine to the nearest region of the run; 1 if none is known


class RegionClassifier(nn.Module):
    """Describer, prototypes ``(K, D)`` of the novel classes and the run's regions (none: nothing is unknown)."""

    def __init__(self, describer: Describer, prototypes: Tensor, rejection: RegionRejection | None = None) -> None:
        super().__init__()
        if prototypes.shape[1] != describer.feature_dim:
            msg = "Prototypes and features are of two versions of anomalib_ncd; discover and pack again."
            raise ValueError(msg)
        self.describer, self.rejection = describer, rejection or RegionRejection()
        self.register_buffer("prototypes", unit_rows(prototypes.detach().float()))
        self.prototypes: Tensor

    @classmethod
    def of(cls, network: AnomalyNcdModel) -> RegionClassifier:
        """Describer and best head of a network in evaluation mode, shared; ``ValueError`` if it has no classes."""
        return cls(network.describer, network.prototypes, network.rejection).eval()

    @property
    def input_names(self) -> tuple[str, ...]:
        """What :meth:`forward` takes."""
        return (*INPUT_NAMES, *WHOLE_IMAGE_NAMES) if self.describer.needs_whole_images else INPUT_NAMES

    def forward(
        self, image: Tensor, mask: Tensor, whole_image: Tensor | None = None, image_index: Tensor | None = None
    ) -> RegionOutput:
        """Classify regions; arguments as :meth:`Describer.forward`."""
        feature, rejection_feature, _ = self.describer(image, mask, whole_image, image_index)
        similarity = unit_rows(feature.float()) @ self.prototypes.T
        probabilities = (similarity / LOGIT_TEMPERATURE).softmax(dim=-1)
        return RegionOutput(probabilities, feature, self.rejection(rejection_feature))


def without_inplace(module: nn.Module) -> nn.Module:
    """Let activations make new tensors, which gives the same numbers and exports sooner."""
    parts: Any = module.modules()
    for part in parts:
        if hasattr(part, "inplace"):
            part.inplace = False
    return module


def write_onnx(module: nn.Module, example: tuple[Tensor, ...], file: Path, **kwargs: Any) -> None:
    """Write a module as ONNX; `kwargs` as ``torch.onnx.export``."""
    options = {"opset_version": OPSET, "external_data": False, "verbose": False}
    with torch.no_grad():
        torch.onnx.export(module, example, str(file), dynamo=True, **(options | kwargs))


def save_onnx(classifier: RegionClassifier, file: str | Path, **kwargs: Any) -> None:
    """Write a classifier as ONNX, with the inputs of :meth:`RegionClassifier.forward` and any number of regions.

    `kwargs` take the place of options of ``torch.onnx.export`` that are chosen here.
    """
    if not module_available("onnxscript"):
        msg = "Export to ONNX and OpenVINO needs the package onnxscript: `pip install onnxscript`."
        raise ModuleNotFoundError(msg)
    options: dict[str, Any] = {
        "input_names": list(classifier.input_names),
        "output_names": list(OUTPUT_NAMES),
        "dynamic_shapes": {
            name: {0: "images" if name == "whole_image" else "regions"} for name in classifier.input_names
        },
    }
    write_onnx(without_inplace(classifier), _example_input(classifier), Path(file), **(options | kwargs))


def to_torch(model: Any, export_root: Path | str, model_file_name: str = "model") -> Path:
    """Write ``weights/torch/<name>.pt`` of an AnomalyNcd: ``{"model": RegionClassifier}``, for ``TorchInferencer``."""
    classifier = RegionClassifier.of(model.model)
    file = _target(export_root, ExportType.TORCH) / f"{model_file_name}.pt"
    torch.save({"model": classifier}, file)
    return file


def to_onnx(
    model: Any,
    export_root: Path | str,
    model_file_name: str = "model",
    input_size: tuple[int, int] | None = None,
    **kwargs: Any,
) -> Path:
    """Write ``weights/onnx/<name>.onnx`` of an AnomalyNcd; `kwargs` as :func:`save_onnx`.

    ``ValueError`` if the size is not the backbone's, or there are no classes; ``ModuleNotFoundError`` without
    ``onnxscript``.
    """
    classifier = RegionClassifier.of(model.model)
    side = classifier.describer.image_size
    if input_size is not None and tuple(input_size) != (side, side):
        msg = f"`input_size` must be {(side, side)}, the size of a region's view, got {input_size}; leave it out."
        raise ValueError(msg)
    file = _target(export_root, ExportType.ONNX) / f"{model_file_name}.onnx"
    save_onnx(classifier, file, **kwargs)
    return file


def compress(
    model: Any,
    network: Any,
    compression_type: CompressionType | None = None,
    datamodule: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Quantise AnomalyNcd's OpenVINO model on a datamodule's regions, with ``ModuleNotFoundError`` without NNCF."""
    if not module_available("nncf"):
        msg = f"{compression_type} needs the package nncf: `pip install 'anomalib-ncd[int8]'`; FP16 does without."
        raise ModuleNotFoundError(msg)
    if isinstance(datamodule, NcdDataModule):
        datamodule.prepare_for(model.inputs)
    return AnomalibModule._compress_ov_model(model, network, compression_type, datamodule, *args, **kwargs)


def quantise(model: Any, datamodule: Any = None) -> Any:
    """Quantise weights and activations of an OpenVINO model on a datamodule's regions."""
    import nncf  # noqa: PLC0415

    return nncf.quantize(model, nncf.Dataset(_inputs_of(model, datamodule)), **_quantisation_options(model))


def quantise_with_accuracy_control(
    model: Any, datamodule: Any = None, metric: Any = None, task: Any = None, max_drop: float = 0.01
) -> Any:
    """Quantise so that at most `max_drop` of the regions change their class; no label is needed.

    NNCF takes back the quantisation of one operation after the other. Where it finds no way, a warning says how
    many regions keep their class.
    """
    import nncf  # noqa: PLC0415
    import openvino  # noqa: PLC0415

    del metric, task
    inputs = _inputs_of(model, datamodule)
    exact = openvino.compile_model(model, "CPU", EXACT)
    classes = [exact(one)[OUTPUT_NAMES[0]].argmax(axis=1) for one in inputs]
    items = list(zip(inputs, classes, strict=True))

    def agreement(compiled: Any, some: Iterable[tuple[Any, np.ndarray]]) -> tuple[float, list[float]]:
        equal = [float((compiled(one)[OUTPUT_NAMES[0]].argmax(axis=1) == kept).mean()) for one, kept in some]
        return float(np.mean(equal)), equal

    quantised = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(inputs),
        nncf.Dataset(items, lambda item: item[0]),
        agreement,
        max_drop=max_drop,
        **_quantisation_options(model),
    )
    kept, _ = agreement(openvino.compile_model(quantised, "CPU", EXACT), items)
    level = logging.INFO if kept >= 1 - max_drop else logging.WARNING
    logger.log(level, "Of %d regions, %.1f%% keep their class in INT8.", len(inputs), 100 * kept)
    return quantised


def calibration_inputs(datamodule: Any, number: int = NUM_CALIBRATION_REGIONS) -> list[dict[str, np.ndarray]]:
    """Take inputs of regions off an :class:`~anomalib_ncd.NcdDataModule` to calibrate a quantisation with."""
    if not isinstance(datamodule, NcdDataModule):
        msg = f"INT8 needs regions to calibrate with: give an NcdDataModule as `datamodule`, got {datamodule!r}."
        raise TypeError(msg)
    datamodule.setup()
    return list(islice(_regions_of(datamodule), number))


def _regions_of(datamodule: Any) -> Iterator[dict[str, np.ndarray]]:
    """Views and masks of all regions, one by one, each with the view of its image, if the datamodule gives any."""
    for batch in datamodule.test_dataloader():
        image_index = batch.region_image_index
        whole = [] if batch.whole_image is None else [batch.whole_image[image_index], torch.zeros_like(image_index)]
        parts = dict(zip((*INPUT_NAMES, *WHOLE_IMAGE_NAMES), (batch.image, batch.region_mask, *whole), strict=False))
        for row in range(len(image_index)):
            yield {name: part[row : row + 1].numpy() for name, part in parts.items()}


def _inputs_of(model: Any, datamodule: Any) -> list[dict[str, np.ndarray]]:
    """Of :func:`calibration_inputs` those that a network has."""
    names = {name for port in model.inputs for name in port.get_names()}
    return [{name: one[name] for name in one if name in names} for one in calibration_inputs(datamodule)]


def _quantisation_options(model: Any) -> dict[str, Any]:
    """Quantise attention as attention where there is any."""
    import nncf  # noqa: PLC0415

    has_attention = any(operation.get_type_name() == "Softmax" for operation in model.get_ops()[:-1])
    return {"model_type": nncf.ModelType.TRANSFORMER} if has_attention else {}


def _example_input(classifier: RegionClassifier) -> tuple[Tensor, ...]:
    """Three regions of two images, as a batch of one would make the batch size a constant."""
    side, device = classifier.describer.image_size, classifier.prototypes.device
    mask = torch.zeros(3, 1, side, side, device=device)
    mask[:, :, : side // 2] = 1
    views = torch.zeros(3, 3, side, side, dtype=torch.uint8, device=device)
    return (views, mask, views[:2].clone(), torch.tensor([0, 1, 1], device=device))[: len(classifier.input_names)]


def _target(export_root: Path | str, export_type: ExportType) -> Path:
    """The folder that anomalib's exports of a type lie in."""
    folder = Path(export_root) / "weights" / export_type.value
    folder.mkdir(parents=True, exist_ok=True)
    return folder
