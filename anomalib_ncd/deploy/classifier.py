# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From an image to its class of defect: detector, MEBin, regions, encoder and region merging in one object."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from anomalib_ncd.deploy.detectors import Detector, MapFunction, as_detector, load_artefact_detector
from anomalib_ncd.deploy.packing.artefact import Artefact, ArtefactError, Manifest
from anomalib_ncd.deploy.runtimes import INPUT_NAMES, WHOLE_IMAGE_NAMES, Network, load_encoder
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.crops import Region, check_image
from anomalib_ncd.regions.cutting import UnitCheck, cut_regions
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, LIMITS, ImageLimits, find_files, printable
from anomalib_ncd.regions.views import eval_views, whole_view

logger = logging.getLogger(__name__)

MAX_ERROR_CHARS = 1000
ImageLike: TypeAlias = str | os.PathLike[str] | np.ndarray
OnError = Literal["raise", "report"]


class AnomalyClassifier:
    """Classifies images: artefact in, image in, class out. Nothing is fitted; images don't influence each other.

    Args:
        manifest: Class names, ranges and settings.
        encoder: Classifies regions, see :func:`~anomalib_ncd.deploy.runtimes.load_encoder`.
        detector: Finds the anomalies: a :class:`~anomalib_ncd.deploy.Detector` or a function from an image
            ``(H, W, 3)`` uint8 RGB to its map. Its maps must be in the units of the maps that the run was made from.
        limits: What is too large to be read.
        batch_size: Images that go through the detector together, and are held in memory at a time.
        region_batch_size: Regions that go through the encoder together.
        keep_masks: Keep masks and features of regions in the results.

    Raises:
        ValueError: If there is no detector.

    Example:
        >>> classifier = AnomalyClassifier.load("runs/parts/classifier")  # doctest: +SKIP
        >>> classifier.predict("new/part_17.png").class_name  # doctest: +SKIP
        'scratch'
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: Network,
        detector: Detector | MapFunction | None,
        *,
        limits: ImageLimits | None = None,
        batch_size: int = 8,
        region_batch_size: int = 32,
        keep_masks: bool = True,
    ) -> None:
        if detector is None:
            msg = "The artefact has no detector; give one as `detector`, or pack the run with one."
            raise ValueError(msg)
        for name, value in (("batch_size", batch_size), ("region_batch_size", region_batch_size)):
            if value < 1:
                msg = f"`{name}` must be 1 or more, got {value}."
                raise ValueError(msg)
        self.manifest = manifest
        self.encoder = encoder
        self.detector = as_detector(detector)
        self.limits = limits or LIMITS
        self.batch_size = batch_size
        self.region_batch_size = region_batch_size
        self.keep_masks = keep_masks
        self._check_units = UnitCheck(manifest.score_range, manifest.regions)

    @classmethod
    def load(
        cls,
        path: str | Path,
        detector: Detector | MapFunction | None = None,
        *,
        sha256: str | None = None,
        num_threads: int | None = None,
        device: str = "cpu",
        limits: ImageLimits | None = None,
        batch_size: int = 8,
        keep_masks: bool = True,
    ) -> AnomalyClassifier:
        """Load an artefact, a folder or zip that ``anomalib-ncd pack`` wrote; no code in it is run.

        A ``detector`` takes the place of the artefact's own; ``sha256`` is the digest that the artefact must have.
        ``num_threads`` are those of one call of a runtime, ``device`` is PyTorch's; for the rest see the class.

        Raises:
            FileNotFoundError: If there is nothing at the path.
            ArtefactError: If it is no artefact, damaged, tampered with, or of another version.
            ModuleNotFoundError: If its runtime is not installed.
            ValueError: If neither the artefact nor the caller has a detector.
        """
        artefact = Artefact.load(path, sha256)
        if detector is None:
            detector = load_artefact_detector(artefact, num_threads)
        encoder = load_encoder(artefact, num_threads, device)
        _check_encoder(encoder, artefact.manifest)
        return cls(artefact.manifest, encoder, detector, limits=limits, batch_size=batch_size, keep_masks=keep_masks)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each slot."""
        return self.manifest.class_names

    @property
    def sha256(self) -> str:
        """Digest of all that decides about a result, apart from image and anomaly map."""
        detector = getattr(self.detector, "sha256", type(self.detector).__qualname__)
        return hashlib.sha256(f"{self.manifest.sha256} {detector}".encode()).hexdigest()

    def predict(self, source: ImageLike | Sequence[ImageLike]) -> ImageResult | list[ImageResult]:
        """Classify an image ``(H, W, 3)`` uint8 RGB or an image file; or several, for a list of results in order.

        Several are a folder of image files (searched recursively), a batch ``(B, H, W, 3)``, or a sequence of images
        and files; for what is too large for a list, see :meth:`stream`.

        Raises:
            FileNotFoundError: If a file or folder is not there, or a folder holds no images.
            ValueError: If an image or its anomaly map can't be used; the message names it.
        """
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if not path.is_dir():
                return next(self.stream([path]))
            found = list(self.stream(find_files(path, IMAGE_SUFFIXES)))
            if not found:
                msg = f"The folder {path} holds no images."
                raise FileNotFoundError(msg)
            return found
        if isinstance(source, np.ndarray) and source.ndim == 3:
            return next(self.stream([source]))
        return list(self.stream(source))

    def stream(self, sources: Iterable[ImageLike], on_error: OnError = "raise") -> Iterator[ImageResult]:
        """Classify any number of images ``(H, W, 3)`` uint8 RGB and image files, in order, a batch in memory at a time.

        With ``on_error="raise"`` the first batch with an image that can't be used stops; ``"report"`` yields a result
        for it whose ``error`` says why, whatever went wrong: file, map, detector, runtime, memory.
        """
        sources = iter(sources)
        while batch := list(islice(sources, self.batch_size)):
            yield from (result for _, result in self.classify_files(batch, on_error))

    def classify_files(
        self, sources: Sequence[ImageLike], on_error: OnError = "report"
    ) -> list[tuple[np.ndarray | None, ImageResult]]:
        """Read and classify a batch; each image, ``None`` where it could not be read, and its result."""
        paths = [None if isinstance(source, np.ndarray) else Path(source) for source in sources]
        found = [self._read(source, path, on_error) for source, path in zip(sources, paths, strict=True)]
        read = [(one, path) for one, path in zip(found, paths, strict=True) if isinstance(one, np.ndarray)]
        results = iter(self.classify([image for image, _ in read], [path for _, path in read], on_error))
        return [(one, next(results)) if isinstance(one, np.ndarray) else (None, one) for one in found]

    def classify(
        self, images: Sequence[np.ndarray], paths: Sequence[Path | None], on_error: OnError = "raise"
    ) -> list[ImageResult]:
        """Classify images that were read already; see :meth:`stream`."""
        try:
            return self._classify(images, paths)
        except Exception as error:  # whatever a detector, a runtime or the system comes up with
            if on_error == "raise":
                raise
            if len(images) == 1:
                return [_failed(paths[0], error)]
        return [self.classify([image], [path], on_error)[0] for image, path in zip(images, paths, strict=True)]

    def _read(self, source: ImageLike, path: Path | None, on_error: OnError) -> np.ndarray | ImageResult:
        """Bring an image or a file into one form, or say what is wrong with it."""
        try:
            if path is None:
                return check_image(np.asarray(source))
            return read_image(path, self.manifest.regions.bit_depth, self.limits)
        except Exception as error:
            if on_error == "raise":
                raise
            return _failed(path, error)

    def _classify(self, images: Sequence[np.ndarray], paths: Sequence[Path | None]) -> list[ImageResult]:
        """Classify images of which one that fails makes all of them fail."""
        if not images:
            return []
        anomaly_maps = self.detector.detect(images, paths)
        cuts = [self._cut(*one) for one in zip(images, anomaly_maps, paths, strict=True)]
        outputs = self._encode(images, cuts)
        results, first = [], 0
        for image, cut, path in zip(images, cuts, paths, strict=True):
            own = {name: values[first : first + len(cut)] for name, values in outputs.items()}
            first += len(cut)
            size_hw = (image.shape[0], image.shape[1])
            results.append(classify_image(size_hw, cut, own, self.manifest, path, keep_masks=self.keep_masks))
        return results

    def _cut(self, image: np.ndarray, anomaly_map: np.ndarray, path: Path | None) -> list[Region]:
        try:
            self._check_units(anomaly_map, path or "an image")
            return cut_regions(image, anomaly_map, self.manifest.score_range, self.manifest.regions)[1]
        except ValueError as error:
            msg = f"The detector's map of {path or 'the image'} can't be used: {error}"
            raise ValueError(msg) from error

    def _encode(self, images: Sequence[np.ndarray], cuts: Sequence[list[Region]]) -> dict[str, np.ndarray]:
        """Run the encoder over the regions of all images, a limited number at a time."""
        regions = [region for cut in cuts for region in cut]
        if not regions:
            names = ("class_probabilities", "region_feature", "neighbour_similarity")
            shapes = ((0, len(self.class_names)), (0, 0), (0,))
            return {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}
        image_of = np.repeat(np.arange(len(cuts)), [len(cut) for cut in cuts])
        side, wholes = self.manifest.image_size, None
        if WHOLE_IMAGE_NAMES[0] in self.encoder.input_shapes:
            wholes = np.stack([whole_view(image, side) for image in images])
        parts = []
        for first in range(0, len(regions), self.region_batch_size):
            chosen = slice(first, first + self.region_batch_size)
            views, masks = eval_views([(one.image, one.mask) for one in regions[chosen]], side)
            parts.append(_run(self.encoder, views, masks, wholes, image_of[chosen]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def classify_image(
    size_hw: tuple[int, int],
    regions: Sequence[Region],
    outputs: Mapping[str, np.ndarray],
    manifest: Manifest,
    path: Path | None = None,
    *,
    keep_masks: bool = True,
) -> ImageResult:
    """Predict an image from what the encoder says of its regions, of which there may be none."""
    threshold = -np.inf if manifest.rejection is None else manifest.rejection.threshold
    result = manifest.region_merging.predict(
        outputs["class_probabilities"],
        np.array([region.box_xyxy for region in regions]),
        np.array([region.area for region in regions]),
        np.array([region.score for region in regions]),
        size_hw,
        outputs["neighbour_similarity"] < threshold,
        None if path is None else str(path),
    )
    kept = []
    rows = zip(result.regions, regions, outputs["neighbour_similarity"], outputs["region_feature"], strict=True)
    for found, region, similarity, feature in rows:
        mask, vector = (region.mask, feature) if keep_masks else (None, None)
        kept.append(replace(found, neighbour_similarity=float(similarity), mask=mask, feature=vector))
    return replace(result, regions=tuple(kept))


def _run(
    encoder: Network, views: np.ndarray, masks: np.ndarray, wholes: np.ndarray | None, image_of: np.ndarray
) -> dict[str, np.ndarray]:
    """Classify regions; an encoder that takes ``wholes`` gets those of the images that these regions lie in."""
    inputs = [views, masks]
    if wholes is not None:
        shown, image_index = np.unique(image_of, return_inverse=True)
        inputs += [wholes[shown], image_index.astype(np.int64)]
    return encoder(dict(zip((*INPUT_NAMES, *WHOLE_IMAGE_NAMES), inputs, strict=False)))


def _check_encoder(encoder: Network, manifest: Manifest) -> None:
    """Classify a made-up region, and refuse an encoder that doesn't go with the manifest."""
    side, num_classes = manifest.image_size, len(manifest.class_names)
    views, masks = np.zeros((1, 3, side, side), np.uint8), np.ones((1, 1, side, side), np.float32)
    wholes = views if WHOLE_IMAGE_NAMES[0] in encoder.input_shapes else None
    try:
        shape = _run(encoder, views, masks, wholes, np.zeros(1, np.int64))["class_probabilities"].shape
    except Exception as error:
        msg = f"The encoder of the artefact can't classify regions of {side} pixels a side: {error}"
        raise ArtefactError(msg) from error
    if shape != (1, num_classes):
        msg = f"The encoder of the artefact tells {shape[-1]} classes apart, but there are {num_classes} names."
        raise ArtefactError(msg)


def _failed(path: Path | None, error: Exception) -> ImageResult:
    """A result that says what is wrong, in one line."""
    logger.debug("%s can't be used.", path or "An image", exc_info=error)
    text = " ".join(str(error).split())[:MAX_ERROR_CHARS]
    if not text or not isinstance(error, ValueError | OSError):  # others are not written for whoever reads tables
        text = f"{type(error).__name__}: {text or 'no further reason is given'}"
    return ImageResult(image=None if path is None else printable(path), error=text)
