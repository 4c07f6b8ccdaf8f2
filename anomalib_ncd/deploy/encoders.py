# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From the views of regions to class probabilities, in whichever runtime the artefact was packed for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from anomalib_ncd.deploy.packing.artefact import Artefact
from anomalib_ncd.deploy.packing.manifest import ArtefactError
from anomalib_ncd.deploy.runtimes import Network, load_network

if TYPE_CHECKING:
    from anomalib_ncd.models.export import RegionClassifier

INPUT_NAMES = ("image", "mask")
WHOLE_IMAGE_NAMES = ("whole_image", "image_index")
ENCODER_SETTINGS = frozenset(
    {"backbone", "describer", "image_size", "mask_layers", "trainable_blocks", "feature_layers", "empty_mask"}
)
OUTPUT_NAMES = ("class_probabilities", "region_feature", "neighbour_similarity")


class Encoder(Protocol):
    """Classifies regions."""

    @property
    def needs_whole_images(self) -> bool:
        """Whether views ``(I, 3, S, S)`` uint8 of whole images go in, too, and which one each region lies in."""
        ...

    def __call__(self, views: np.ndarray, masks: np.ndarray, *whole: np.ndarray) -> dict[str, np.ndarray]:
        """Classify views ``(R, 3, S, S)`` uint8 with masks ``(R, 1, S, S)`` float32 in [0, 1].

        Returns:
            By name: ``class_probabilities`` ``(R, K)``, ``region_feature`` ``(R, D)`` and ``neighbour_similarity``
            ``(R,)``, cosine to the nearest region of the run, 1 where none are known; all float32.
        """
        ...


class NetworkEncoder:
    """A network of ONNX Runtime or OpenVINO that ``AnomalyNcd`` was exported to; one with other inputs is refused."""

    def __init__(self, network: Network) -> None:
        fits = set(network.input_shapes) in ({*INPUT_NAMES}, {*INPUT_NAMES, *WHOLE_IMAGE_NAMES})
        if not fits or not set(OUTPUT_NAMES) <= set(network.output_names):
            found = f"{sorted(network.input_shapes)} to {network.output_names}"
            msg = f"The encoder must lead from {INPUT_NAMES} to {OUTPUT_NAMES}, got {found}; export AnomalyNcd again."
            raise ArtefactError(msg)
        self.network = network

    @property
    def needs_whole_images(self) -> bool:
        """See :class:`Encoder`."""
        return WHOLE_IMAGE_NAMES[0] in self.network.input_shapes

    def __call__(self, views: np.ndarray, masks: np.ndarray, *whole: np.ndarray) -> dict[str, np.ndarray]:
        """Classify regions; see :class:`Encoder`."""
        outputs = self.network(dict(zip((*INPUT_NAMES, *WHOLE_IMAGE_NAMES), (views, masks, *whole), strict=False)))
        return {name: outputs[name] for name in OUTPUT_NAMES}


class TorchEncoder:
    """Encoder and head of a trained model in PyTorch."""

    def __init__(self, classifier: RegionClassifier, device: str = "cpu") -> None:
        self.classifier = classifier.eval().to(device)
        self.device = device

    @property
    def needs_whole_images(self) -> bool:
        """See :class:`Encoder`."""
        return self.classifier.describer.needs_whole_images

    def __call__(self, views: np.ndarray, masks: np.ndarray, *whole: np.ndarray) -> dict[str, np.ndarray]:
        """Classify regions; see :class:`Encoder`."""
        import torch  # noqa: PLC0415

        with torch.inference_mode():
            outputs = self.classifier(*(torch.from_numpy(part).to(self.device) for part in (views, masks, *whole)))
        return {name: getattr(outputs, name).float().cpu().numpy() for name in OUTPUT_NAMES}


def load_encoder(artefact: Artefact, num_threads: int | None = None, device: str = "cpu") -> Encoder:
    """Load the encoder of an artefact; arguments and errors as of :meth:`AnomalyClassifier.load`."""
    entry = artefact.manifest.encoder
    contents = artefact.contents_of(entry)
    if entry.runtime != "torch":
        return NetworkEncoder(load_network(entry.runtime, contents, num_threads))
    return TorchEncoder(_rebuild(contents, entry.settings), device)


def _rebuild(contents: Sequence[bytes], settings: Mapping[str, Any]) -> RegionClassifier:
    """Build the network from its settings and fill in the weights; nothing is unpickled."""
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    from anomalib_ncd.models.describer import build_describer  # noqa: PLC0415
    from anomalib_ncd.models.encoders.build_encoder import build_encoder  # noqa: PLC0415
    from anomalib_ncd.models.export import RegionClassifier  # noqa: PLC0415

    if set(settings) != ENCODER_SETTINGS or not re.fullmatch(r"[\w.]+", str(settings["backbone"])):
        msg = f"An encoder is built from {sorted(ENCODER_SETTINGS)} with the name of a backbone, got {dict(settings)}."
        raise ArtefactError(msg)
    try:
        state, settings = load(contents[0]), dict(settings)
        kind = settings.pop("describer")
        describer = build_describer(kind, build_encoder(pretrained=False, **settings))
        classifier = RegionClassifier(describer, torch.zeros_like(state["prototypes"]))
        classifier.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        msg = f"The artefact's weights and settings don't make an encoder: {error}"
        raise ArtefactError(msg) from error
    return classifier.eval()
