# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""ONNX Runtime, OpenVINO and PyTorch behind one interface, one of which classifies regions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from anomalib_ncd.deploy.packing.artefact import Artefact, ArtefactError

if TYPE_CHECKING:
    from anomalib_ncd.models.export import RegionClassifier

INPUT_NAMES = ("image", "mask")
WHOLE_IMAGE_NAMES = ("whole_image", "image_index")
ENCODER_SETTINGS = frozenset(
    {"backbone", "describer", "image_size", "mask_layers", "trainable_blocks", "feature_layers", "empty_mask"}
)
OUTPUT_NAMES = ("class_probabilities", "region_feature", "neighbour_similarity")


class Network(Protocol):
    """A network that a runtime executes."""

    input_shapes: dict[str, tuple[int, ...]]  # shape of each input by name, -1 where any length will do
    output_names: list[str]  # names of the outputs, in order

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network."""
        ...


class OnnxNetwork:
    """A network in ONNX Runtime, from the bytes of the ``.onnx`` file, or the file where weights lie next to it."""

    def __init__(self, contents: bytes | Path, num_threads: int | None = None) -> None:
        onnxruntime = _runtime("onnxruntime")
        options = onnxruntime.SessionOptions()
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        # Waiting threads that spin take the cores from the next step, from a second network and from other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        model = contents if isinstance(contents, bytes) else str(contents)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has a class of its own for each kind of failure
            msg = f"ONNX Runtime can't load the network: {error}"
            raise ArtefactError(msg) from error
        self.input_shapes = {
            entry.name: tuple(side if isinstance(side, int) else -1 for side in entry.shape)
            for entry in self._session.get_inputs()
        }
        self.output_names = [entry.name for entry in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network."""
        return dict(zip(self.output_names, self._session.run(None, dict(inputs)), strict=True))


class OpenVinoNetwork:
    """A network in OpenVINO, from the bytes of the ``.xml`` and the ``.bin`` file.

    In full single precision, so that results don't depend on the processor.
    """

    def __init__(self, contents: Sequence[bytes], num_threads: int | None = None) -> None:
        openvino = _runtime("openvino")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if num_threads is not None:
            settings["INFERENCE_NUM_THREADS"] = num_threads
        try:
            core = openvino.Core()
            self._network = core.compile_model(core.read_model(contents[0], contents[1]), "CPU", settings)
        except Exception as error:  # one class for all failures, RuntimeError, and TypeError for odd contents
            msg = f"OpenVINO can't load the network: {error}"
            raise ArtefactError(msg) from error
        self._request = self._network.create_infer_request()
        self.input_shapes = {
            entry.get_any_name(): tuple(side.get_length() if side.is_static else -1 for side in entry.partial_shape)
            for entry in self._network.inputs
        }
        self.output_names = [entry.get_any_name() for entry in self._network.outputs]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        return {name: np.array(results[index]) for index, name in enumerate(self.output_names)}


def _runtime(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        msg = f"The network needs the package {package}: `pip install {package}`."
        raise ModuleNotFoundError(msg) from error


def load_network(runtime: str, contents: Sequence[bytes], num_threads: int | None = None) -> Network:
    """Load a network from the bytes of its files, the model first, into ``"onnx"`` or ``"openvino"``."""
    if runtime == "onnx":
        return OnnxNetwork(contents[0], num_threads)
    if runtime == "openvino":
        return OpenVinoNetwork(contents, num_threads)
    msg = f"`runtime` must be 'onnx' or 'openvino' here, got {runtime!r}."
    raise ValueError(msg)


class TorchNetwork:
    """Encoder and head of a trained model in PyTorch."""

    def __init__(self, classifier: RegionClassifier, device: str = "cpu") -> None:
        self.classifier, self.device = classifier.eval().to(device), device
        whole = WHOLE_IMAGE_NAMES if classifier.describer.needs_whole_images else ()
        self.input_shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*INPUT_NAMES, *whole), ())
        self.output_names = list(OUTPUT_NAMES)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network."""
        import torch  # noqa: PLC0415

        tensors = [torch.from_numpy(inputs[name]).to(self.device) for name in self.input_shapes]
        with torch.inference_mode():
            outputs = self.classifier(*tensors)
        return {name: getattr(outputs, name).float().cpu().numpy() for name in OUTPUT_NAMES}


def load_encoder(artefact: Artefact, num_threads: int | None = None, device: str = "cpu") -> Network:
    """Load the network that classifies regions; arguments and errors as of :meth:`AnomalyClassifier.load`.

    It leads from views ``image`` ``(R, 3, S, S)`` uint8 and ``mask`` ``(R, 1, S, S)`` float32 in [0, 1], and, where
    regions are described by their images, too, from ``whole_image`` ``(I, 3, S, S)`` and ``image_index`` ``(R,)``, to
    ``class_probabilities`` ``(R, K)``, ``region_feature`` ``(R, D)`` and ``neighbour_similarity`` ``(R,)``, the cosine
    to the nearest region of the run, 1 where none are known; all float32.
    """
    entry = artefact.manifest.encoder
    contents = artefact.contents_of(entry)
    if entry.runtime == "torch":
        return TorchNetwork(_rebuild(contents, entry.settings), device)
    return check_encoder(load_network(entry.runtime, contents, num_threads))


def check_encoder(network: Network) -> Network:
    """A network of ONNX Runtime or OpenVINO, if ``AnomalyNcd`` was exported to it."""
    fits = set(network.input_shapes) in ({*INPUT_NAMES}, {*INPUT_NAMES, *WHOLE_IMAGE_NAMES})
    if not fits or not set(OUTPUT_NAMES) <= set(network.output_names):
        found = f"{sorted(network.input_shapes)} to {network.output_names}"
        msg = f"The encoder must lead from {INPUT_NAMES} to {OUTPUT_NAMES}, got {found}; export AnomalyNcd again."
        raise ArtefactError(msg)
    return network


def _rebuild(contents: Sequence[bytes], settings: Mapping[str, Any]) -> RegionClassifier:
    """Build the network from its settings and fill in the weights; nothing is unpickled."""
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    from anomalib_ncd.models.describer import build_describer  # noqa: PLC0415
    from anomalib_ncd.models.export import RegionClassifier  # noqa: PLC0415

    if set(settings) != ENCODER_SETTINGS or not re.fullmatch(r"[\w.]+(\+[\w.]+)*", str(settings["backbone"])):
        msg = f"An encoder is built from {sorted(ENCODER_SETTINGS)} with the name of a backbone, got {dict(settings)}."
        raise ArtefactError(msg)
    try:
        state, settings = load(contents[0]), dict(settings)
        describer = build_describer(settings.pop("describer"), pretrained=False, **settings)
        classifier = RegionClassifier(describer, torch.zeros_like(state["prototypes"]))
        classifier.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        msg = f"The artefact's weights and settings don't make an encoder: {error}"
        raise ArtefactError(msg) from error
    return classifier.eval()
