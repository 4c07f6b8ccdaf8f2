# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""ONNX Runtime and OpenVINO behind one interface: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from anomalib_ncd.deploy.packing.manifest import ArtefactError

Runtime = Literal["onnx", "openvino"]


class Network(Protocol):
    """A network that a runtime executes.

    Attributes:
        input_shapes: Shape of each input by name, -1 where any length will do.
        output_names: Names of the outputs, in order.
    """

    input_shapes: dict[str, tuple[int, ...]]
    output_names: list[str]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network."""
        ...


class OnnxNetwork:
    """A network in ONNX Runtime.

    ``contents`` are the bytes of the ``.onnx`` file, or the file itself where weights lie next to it.
    """

    def __init__(self, contents: bytes | Path, num_threads: int | None = None) -> None:
        try:
            import onnxruntime  # noqa: PLC0415
        except ModuleNotFoundError as error:
            msg = "ONNX networks need the package onnxruntime: `pip install onnxruntime`."
            raise ModuleNotFoundError(msg) from error
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
        self.input_shapes = {entry.name: _shape(entry.shape) for entry in self._session.get_inputs()}
        self.output_names = [entry.name for entry in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network."""
        return dict(zip(self.output_names, self._session.run(None, dict(inputs)), strict=True))


class OpenVinoNetwork:
    """A network in OpenVINO, in full single precision, so that results don't depend on the processor.

    ``contents`` are the bytes of the ``.xml`` file and of the ``.bin`` file.
    """

    def __init__(self, contents: Sequence[bytes], num_threads: int | None = None, device: str = "CPU") -> None:
        try:
            import openvino  # noqa: PLC0415
        except ModuleNotFoundError as error:
            msg = "OpenVINO networks need the package openvino: `pip install openvino`."
            raise ModuleNotFoundError(msg) from error
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if num_threads is not None:
            settings["INFERENCE_NUM_THREADS"] = num_threads
        try:
            core = openvino.Core()
            self._network = core.compile_model(core.read_model(contents[0], contents[1]), device, settings)
        except Exception as error:  # one class for all failures, RuntimeError, and TypeError for odd contents
            msg = f"OpenVINO can't load the network: {error}"
            raise ArtefactError(msg) from error
        self._request = self._network.create_infer_request()
        self.input_shapes = {entry.get_any_name(): _partial_shape(entry) for entry in self._network.inputs}
        self.output_names = [entry.get_any_name() for entry in self._network.outputs]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        return {name: np.array(results[index]) for index, name in enumerate(self.output_names)}


def load_network(runtime: str, contents: Sequence[bytes], num_threads: int | None = None) -> Network:
    """Load a network from the bytes of its files, the model first, into ``"onnx"`` or ``"openvino"``."""
    if runtime == "onnx":
        return OnnxNetwork(contents[0], num_threads)
    if runtime == "openvino":
        return OpenVinoNetwork(contents, num_threads)
    msg = f"`runtime` must be 'onnx' or 'openvino' here, got {runtime!r}."
    raise ValueError(msg)


def _shape(shape: Sequence[Any]) -> tuple[int, ...]:
    """A shape of ONNX, names and gaps as -1."""
    return tuple(side if isinstance(side, int) else -1 for side in shape)


def _partial_shape(entry: Any) -> tuple[int, ...]:  # noqa: ANN401
    """A shape of OpenVINO, dynamic sides as -1."""
    return tuple(side.get_length() if side.is_static else -1 for side in entry.partial_shape)
