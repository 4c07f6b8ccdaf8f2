# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From the folder of a run to a classifier: in this process, or packed as an artefact."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from anomalib.deploy import CompressionType
from anomalib.models import AnomalibModule
from safetensors.torch import save as save_safetensors

from anomalib_ncd import __version__
from anomalib_ncd.data.detector_maps import LightningDetector
from anomalib_ncd.deploy.classifier import AnomalyClassifier
from anomalib_ncd.deploy.detectors import Detector, MapFunction, file_digest
from anomalib_ncd.deploy.packing.artefact import MAX_SIMILARITIES, Artefact, Manifest, NetworkEntry, Rejection
from anomalib_ncd.deploy.packing.detector_files import pack_detector
from anomalib_ncd.deploy.runtimes import ENCODER_SETTINGS, TorchNetwork
from anomalib_ncd.models.export import RegionClassifier, save_onnx
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.models.rejection import check_false_reject_rate
from anomalib_ncd.results.class_names import FILE_NAME, read_class_names

PackRuntime = Literal["onnx", "openvino", "torch"]
CHECKPOINT_NAME = "model.ckpt"
EXPORT_PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}


def classifier_of_run(
    run: str | Path,
    detector: Detector | MapFunction | AnomalibModule,
    *,
    device: str = "cpu",
    false_reject_rate: float | None = None,
    **options: Any,
) -> AnomalyClassifier:
    """Make a classifier of a run, in PyTorch on a ``device``, without exporting anything.

    A fitted anomalib model will do as ``detector``, too; ``options`` are further arguments of
    :class:`~anomalib_ncd.deploy.AnomalyClassifier`. For the rest, and errors, see :func:`build_artefact`.
    """
    model, manifest = _read_run(Path(run), false_reject_rate)
    if isinstance(detector, AnomalibModule):
        detector = LightningDetector(detector, device)
    return AnomalyClassifier(manifest, TorchNetwork(RegionClassifier.of(model.model), device), detector, **options)


def _require_export_packages(runtime: PackRuntime, compression: str | None) -> None:
    missing = [name for name in EXPORT_PACKAGES[runtime] if find_spec(name) is None]
    extra = "export"
    if compression is not None and compression.startswith("int8") and find_spec("nncf") is None:
        missing, extra = [*missing, "nncf"], "export,int8"
    if missing:
        msg = f"Packing for {runtime!r} needs {', '.join(missing)}: `pip install 'anomalib-ncd[{extra}]'`."
        raise ModuleNotFoundError(msg)


def build_artefact(
    run: str | Path,
    *,
    detector: AnomalibModule | str | Path | None = None,
    detector_input_size: tuple[int, int] | None = None,
    runtime: PackRuntime = "onnx",
    compression: CompressionType | str | None = None,
    datamodule: Any = None,
    false_reject_rate: float | None = None,
) -> Artefact:
    """Pack a run, and the detector that goes with it, for the line; see :meth:`Artefact.save`.

    ``FileNotFoundError`` if the run has no checkpoint; ``ValueError`` if an option doesn't go with the runtime, or the
    detector can't be packed; ``ModuleNotFoundError`` if the export needs a package that is not installed.

    Args:
        run: Folder that ``anomalib-ncd discover`` left, or a checkpoint of ``AnomalyNcd``.
        detector: Fitted anomalib model, which is exported with its own scores; or an ``.onnx`` or ``.xml`` file whose
            maps are in the units of the run's maps. ``None``: the detector is given when predicting.
        detector_input_size: Height and width that images are brought to for a detector given as a file.
        runtime: What the encoder runs in. A detector given as a model goes to ONNX, or OpenVINO where that is chosen.
        compression: ``"fp16"``, ``"int8"``, ``"int8_ptq"`` or ``"int8_acq"`` for OpenVINO, as anomalib calls them.
        datamodule: Regions to calibrate ``"int8_ptq"`` and ``"int8_acq"`` with; they are cut as those of the run were.
        false_reject_rate: Share of new regions of known classes that may be called unknown. ``None``: the run's own.
    """
    if compression is not None and runtime != "openvino":
        msg = f"`compression` is OpenVINO's, got {compression!r} for {runtime!r}; choose `runtime='openvino'`."
        raise ValueError(msg)
    _require_export_packages(runtime, compression)
    model, manifest = _read_run(Path(run), false_reject_rate)
    if datamodule is not None:
        datamodule.regions, datamodule.score_range = manifest.regions, manifest.score_range
    files = _encoder_files(model, runtime, compression, datamodule)
    manifest = replace(manifest, encoder=replace(manifest.encoder, runtime=runtime, files=tuple(files)))
    if detector is not None:
        packed, detector_files = pack_detector(detector, detector_input_size, runtime)
        manifest = replace(manifest, detector=packed)
        files |= detector_files
    return Artefact.create(manifest, files)


def _read_run(run: Path, false_reject_rate: float | None = None) -> tuple[AnomalyNcd, Manifest]:
    """Model of a run and what its predictions need, the encoder still in PyTorch."""
    checkpoint = run / CHECKPOINT_NAME if run.is_dir() else run
    if not checkpoint.is_file():
        msg = f"There is no checkpoint {checkpoint}; give the folder that `anomalib-ncd discover` left."
        raise FileNotFoundError(msg)
    model = AnomalyNcd.load_from_checkpoint(checkpoint, map_location="cpu")
    low, high = model.score_range.double().tolist()
    if model.region_settings is None or not (np.isfinite(low) and np.isfinite(high)):
        msg = f"{checkpoint} doesn't say how regions are cut: it was never fitted, or is of an older version."
        raise ValueError(msg)
    if false_reject_rate is not None:
        check_false_reject_rate(false_reject_rate)
        model.model.rejection.false_reject_rate = false_reject_rate
    describer, names = model.model.describer, checkpoint.parent / FILE_NAME
    hyper = dict(model.hparams) | dict(model.hparams["training"]) | {"image_size": describer.image_size}
    manifest = Manifest(
        # as the user gave them last
        class_names=tuple(read_class_names(names, model.slots.default_names) if names.is_file() else model.class_names),
        normal_slot=model.region_merging.normal_slot,
        score_range=(low, high),
        regions=model.region_settings,
        map_kind=model.map_kind,
        image_size=describer.image_size,
        encoder=NetworkEntry("torch", (), {name: hyper[name] for name in sorted(ENCODER_SETTINGS)}),
        merging_temperature=model.training_settings.merging_temperature,
        rejection=_rejection_of(model),
        origin={"anomalib_ncd": __version__, "checkpoint_sha256": file_digest(checkpoint)},
    )
    return model, manifest


def _rejection_of(model: AnomalyNcd) -> Rejection | None:
    """The rejection threshold that a model carries; ``None`` where it has none."""
    rejection = model.model.rejection
    threshold, rate = rejection.threshold, rejection.false_reject_rate
    if threshold is None or rate is None:
        return None
    _, first = np.unique(rejection.groups.cpu().numpy(), return_index=True)  # the largest region of each image
    similarities = np.sort(rejection.left_out_similarity.cpu().numpy()[first])
    kept = similarities[np.linspace(0, len(similarities) - 1, min(len(similarities), MAX_SIMILARITIES)).astype(int)]
    return Rejection(threshold, rate, tuple(kept.tolist()))


def _encoder_files(
    model: AnomalyNcd, runtime: PackRuntime, compression: CompressionType | str | None, datamodule: Any
) -> dict[str, bytes]:
    classifier = RegionClassifier.of(model.model)
    if runtime == "torch":
        state = {name: value.contiguous() for name, value in classifier.state_dict().items()}
        return {"encoder.safetensors": save_safetensors(state)}
    with tempfile.TemporaryDirectory(prefix="anomalib_ncd_") as folder:
        if runtime == "onnx":
            file = Path(folder) / "encoder.onnx"
            save_onnx(classifier, file)
            return {file.name: file.read_bytes()}
        wanted = None if compression is None else CompressionType(compression)
        file = model.to_openvino(folder, "encoder", compression_type=wanted, datamodule=datamodule)
        return {part.name: part.read_bytes() for part in (file, file.with_suffix(".bin"))}
