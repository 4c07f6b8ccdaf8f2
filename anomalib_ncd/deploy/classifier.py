# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""From an image to its class of defect: detector, MEBin, regions, encoder and region merging in one object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np

from anomalib_ncd.deploy.detectors import Detection, Detector, MapFunction, as_detector, load_artefact_detector
from anomalib_ncd.deploy.encoders import Encoder, RegionPredictions, load_encoder
from anomalib_ncd.deploy.image_files import ImageInput, ImageLimits, image_files, read_image_file
from anomalib_ncd.deploy.packing.artefact import Artefact
from anomalib_ncd.deploy.packing.manifest import Manifest
from anomalib_ncd.deploy.results import ImageResult
from anomalib_ncd.deploy.stages import CutImage, classify_image, cut_image, views_of, whole_views_of

ImageLike: TypeAlias = str | os.PathLike[str] | np.ndarray
OnError = Literal["raise", "report"]


class StageTimer(Protocol):
    """Told about the beginning and end of each step."""

    def __call__(self, stage: str) -> AbstractContextManager[object]:
        """Return what is entered before a step and left after it."""
        ...


class AnomalyClassifier:
    """Classifies images: artefact in, image in, class out. Nothing is fitted; images don't influence each other.

    Args:
        manifest: Class names, ranges and settings.
        encoder: Classifies regions.
        detector: Finds the anomalies: a :class:`~anomalib_ncd.deploy.Detector` or a function from an image
            ``(H, W, 3)`` uint8 RGB to its map. Its maps must be in the units of the maps that the run was made from.
        limits: What is too large to be read.
        batch_size: Images that go through the detector together, and are held in memory at a time.
        region_batch_size: Regions that go through the encoder together.
        keep_masks: Keep masks and features of regions in the results.
        timer: Told about each step. Defaults to ``None``.

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
        encoder: Encoder,
        detector: Detector | MapFunction | None,
        *,
        limits: ImageLimits | None = None,
        batch_size: int = 8,
        region_batch_size: int = 32,
        keep_masks: bool = True,
        timer: StageTimer | None = None,
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
        self.limits = limits or ImageLimits()
        self.batch_size = batch_size
        self.region_batch_size = region_batch_size
        self.keep_masks = keep_masks
        self._timer: StageTimer = timer or (lambda _: nullcontext())

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
        timer: StageTimer | None = None,
    ) -> AnomalyClassifier:
        """Load an artefact; no code in it is run.

        Args:
            path: Folder or zip that ``anomalib-ncd pack`` wrote.
            detector: Detector to use instead of the artefact's own.
            sha256: Digest that the artefact must have. Defaults to ``None``: any.
            num_threads: Threads for one call of a runtime. Defaults to ``None``: the runtime's choice.
            device: Device of PyTorch, for artefacts packed with ``runtime="torch"``.
            limits: See the class.
            batch_size: See the class.
            keep_masks: See the class.
            timer: See the class.

        Returns:
            The classifier.

        Raises:
            FileNotFoundError: If there is nothing at the path.
            ArtefactError: If it is no artefact, damaged, tampered with, or of another version.
            ModuleNotFoundError: If its runtime is not installed.
            ValueError: If neither the artefact nor the caller has a detector.
        """
        artefact = Artefact.load(path, sha256)
        manifest = artefact.manifest
        if detector is None:
            detector = load_artefact_detector(artefact, num_threads)
        else:
            manifest = replace(manifest, image_threshold=None)  # which is in the units of the artefact's own
        return cls(
            manifest,
            load_encoder(artefact, num_threads, device),
            detector,
            limits=limits,
            batch_size=batch_size,
            keep_masks=keep_masks,
            timer=timer,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each slot."""
        return self.manifest.class_names

    def predict(self, source: ImageLike | Sequence[ImageLike]) -> ImageResult | list[ImageResult]:
        """Classify an image, or several.

        Args:
            source: An image ``(H, W, 3)`` uint8 RGB, an image file, a folder of image files (searched recursively), a
                batch ``(B, H, W, 3)``, or a sequence of images and files.

        Returns:
            One result for an image or file, else a list in order. For folders too large for a list use
            :meth:`stream`.

        Raises:
            FileNotFoundError: If a file or folder is not there, or a folder holds no images.
            ValueError: If an image or its anomaly map can't be used; the message names it.
        """
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if not path.is_dir():
                return next(self.stream([path]))
            found = list(self.stream(image_files(path)))
            if not found:
                msg = f"The folder {path} holds no images."
                raise FileNotFoundError(msg)
            return found
        if isinstance(source, np.ndarray) and source.ndim == 3:
            return next(self.stream([source]))
        return list(self.stream(source))

    def stream(self, sources: Iterable[ImageLike], on_error: OnError = "raise") -> Iterator[ImageResult]:
        """Classify any number of images, holding one batch in memory at a time.

        Args:
            sources: Images ``(H, W, 3)`` uint8 RGB and image files.
            on_error: ``"raise"`` stops at the first image that can't be used; ``"report"`` yields a result for it
                whose ``error`` says why.

        Yields:
            One result for each image, in order.
        """
        sources = iter(sources)
        while batch := list(islice(sources, self.batch_size)):
            yield from self._predict_batch(batch, on_error)

    def classify(self, images: Sequence[ImageInput], on_error: OnError = "raise") -> list[ImageResult]:
        """Classify images that were read already; see :meth:`stream`."""
        results: list[ImageResult | None] = [None] * len(images)
        cuts: dict[int, CutImage] = {}
        for index, found in enumerate(self._detect(images, on_error)):
            cut = self._cut(images[index], found, on_error)
            if isinstance(cut, ImageResult):
                results[index] = cut
            else:
                cuts[index] = cut
        predictions = list(self._encode(list(cuts.values())))
        with self._timer("merge"):
            for (index, cut), prediction in zip(cuts.items(), predictions, strict=True):
                results[index] = self._slim(classify_image(cut, prediction, self.manifest))
        return [result for result in results if result is not None]

    def _predict_batch(self, batch: Sequence[ImageLike], on_error: OnError) -> list[ImageResult]:
        """Read and classify a batch."""
        results: dict[int, ImageResult] = {}
        images: dict[int, ImageInput] = {}
        for index, source in enumerate(batch):
            with self._timer("read"):
                image = self._read(source, on_error)
            if isinstance(image, ImageResult):
                results[index] = image
            else:
                images[index] = image
        results |= dict(zip(images, self.classify(list(images.values()), on_error), strict=True))
        return [results[index] for index in range(len(batch))]

    def _read(self, source: ImageLike, on_error: OnError) -> ImageInput | ImageResult:
        """Bring an image or a file into one form, or say what is wrong with it."""
        if isinstance(source, np.ndarray):
            return _checked(source, on_error)
        try:
            return read_image_file(source, self.limits)
        except (OSError, ValueError) as error:
            return _failed(Path(source), error, on_error)

    def _detect(self, images: Sequence[ImageInput], on_error: OnError) -> list[Detection | ValueError]:
        """Detections; where images are to be reported on, what is wrong with one doesn't stop the others."""
        if not images:
            return []
        with self._timer("detector"):
            try:
                return list(self.detector.detect(images))
            except (ValueError, FileNotFoundError):
                if on_error == "raise":
                    raise
            return [self._detect_one(image) for image in images]

    def _detect_one(self, image: ImageInput) -> Detection | ValueError:
        """Detection of one image, or what is wrong with it."""
        try:
            return self.detector.detect([image])[0]
        except (ValueError, FileNotFoundError) as error:
            return ValueError(str(error))

    def _cut(self, image: ImageInput, found: Detection | ValueError, on_error: OnError) -> CutImage | ImageResult:
        """Find and cut the regions of an image, or say what is wrong with its map."""
        if isinstance(found, ValueError):
            return _failed(image.path, found, on_error)
        try:
            with self._timer("crops"):
                return cut_image(image, found, self.manifest)
        except ValueError as error:
            msg = f"The detector's map of {image.path or 'the image'} can't be used: {error}"
            return _failed(image.path, ValueError(msg), on_error)

    def _encode(self, cuts: Sequence[CutImage]) -> Iterator[RegionPredictions]:
        """Run the encoder over the regions of all images, a limited number at a time."""
        regions = [region for cut in cuts for region in cut.regions]
        whole = []
        if regions and getattr(self.encoder, "needs_whole_images", False):
            with self._timer("crops"):
                whole.append(whole_views_of(cuts, self.manifest.image_size))
        parts = []
        for first in range(0, len(regions), self.region_batch_size):
            chosen = slice(first, first + self.region_batch_size)
            with self._timer("crops"):
                views = views_of(regions[chosen], self.manifest.image_size)
            with self._timer("encoder"):
                parts.append(self.encoder(*views, *(wholes[chosen] for wholes in whole)))
        if not parts:
            return
        joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        start = 0
        for cut in cuts:
            stop = start + len(cut.regions)
            yield RegionPredictions(*(array[start:stop] for array in joined))
            start = stop

    def _slim(self, result: ImageResult) -> ImageResult:
        """Leave masks and features out where they aren't wanted."""
        if self.keep_masks:
            return result
        return replace(result, regions=tuple(replace(one, mask=None, feature=None) for one in result.regions))


def _checked(pixels: np.ndarray, on_error: OnError) -> ImageInput | ImageResult:
    """Take an array if it is an image."""
    if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8 and pixels.size:
        return ImageInput(pixels)
    msg = f"An image must have shape (H, W, 3) and be uint8, got {pixels.shape}, {pixels.dtype}; convert it."
    return _failed(None, ValueError(msg), on_error)


def _failed(path: Path | None, error: Exception, on_error: OnError) -> ImageResult:
    """A result that says what is wrong, or the error itself."""
    if on_error == "raise":
        raise error
    return ImageResult(image=None if path is None else str(path), error=str(error))
