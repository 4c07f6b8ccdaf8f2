# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Time of each step between an image file and its class, one image at a time as on a line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mebin_quality import read_grey

from anomalib_ncd.deploy import AnomalyClassifier, Manifest
from anomalib_ncd.deploy.packing.manifest import NetworkEntry
from anomalib_ncd.regions.mebin import fit_score_range
from anomalib_ncd.regions.settings import RegionSettings

STAGES = ("read", "detector", "crops", "encoder", "merge")
BETWEEN = ("crops", "merge")  # what is neither reading nor a network


class StageClock:
    """Adds up the seconds of each stage, image by image; a classifier's ``timer``."""

    def __init__(self) -> None:
        self.images: list[dict[str, float]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage of the current image."""
        start = time.perf_counter()
        yield
        self.images[-1][stage] += time.perf_counter() - start

    def next_image(self) -> None:
        """Begin a new image."""
        self.images.append(dict.fromkeys(STAGES, 0.0))

    def milliseconds(self, stages: Sequence[str]) -> np.ndarray:
        """Time of some stages together, ``(N,)``, an image each."""
        return 1e3 * np.array([sum(image[stage] for stage in stages) for image in self.images])


class SavedMapDetector:
    """Hands out maps that were read beforehand."""

    def __init__(self, maps: Mapping[Path, np.ndarray]) -> None:
        self.maps = maps

    def detect(self, images: Sequence[np.ndarray], paths: Sequence[Path | None] = ()) -> list[np.ndarray]:
        """Look the maps up."""
        del images
        return [self.maps[path] for path in paths if path is not None]


class EvenEncoder:
    """Says of every region that all classes are equally likely, and takes no time."""

    needs_whole_images = False

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, views: np.ndarray, masks: np.ndarray, *whole: np.ndarray) -> dict[str, np.ndarray]:
        """Make up predictions."""
        del masks, whole
        even = np.full((len(views), self.num_classes), 1 / self.num_classes, dtype=np.float32)
        features = np.zeros((len(views), 192), dtype=np.float32)
        nearest = np.ones(len(views), dtype=np.float32)
        return {"class_probabilities": even, "region_feature": features, "neighbour_similarity": nearest}


def default_manifest(score_range: tuple[float, float], num_classes: int = 6) -> Manifest:
    """What a run with default settings would leave, without a network."""
    return Manifest(
        normal_slot=0,
        class_names=("normal", *(f"class_{number}" for number in range(1, num_classes))),
        score_range=score_range,
        regions=RegionSettings(),
        image_size=224,
        encoder=NetworkEntry("onnx", ()),
        merging_temperature=50.0,
    )


def classifier_of_maps(images: Path, maps: Path, clock: StageClock) -> tuple[AnomalyClassifier, list[Path]]:
    """All but the networks, for images whose maps are in a folder; and the images."""
    paths = sorted(images.rglob("*.jpg"))
    loaded = {path: read_grey((maps / path.relative_to(images)).with_suffix(".png")) for path in paths}
    manifest = default_manifest(fit_score_range(loaded.values()))
    encoder = EvenEncoder(len(manifest.class_names))
    return AnomalyClassifier(manifest, encoder, SavedMapDetector(loaded), timer=clock), paths


def time_images(classifier: AnomalyClassifier, clock: StageClock, paths: Sequence[Path], repeats: int) -> float:
    """Classify images one by one, the first few beforehand to warm up; images a second.

    Each image is classified several times, and the fastest time counts, as other work may run on the machine.
    """
    for path in paths[:5]:
        clock.next_image()
        classifier.predict(path)
    kept = []
    for path in paths:
        clock.images.clear()
        for _ in range(repeats):
            clock.next_image()
            classifier.predict(path)
        kept.append(min(clock.images, key=lambda image: sum(image.values())))
    clock.images = kept
    return 1e3 / float(clock.milliseconds(STAGES).mean())


def summary(milliseconds: np.ndarray) -> str:
    """Median and 99th percentile."""
    return f"{np.median(milliseconds):.2f} / {np.percentile(milliseconds, 99):.2f}"
