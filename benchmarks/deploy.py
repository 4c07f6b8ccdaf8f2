# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a classifier on the line takes: memory over many images, and time from an image to its class.

Run as a script it classifies a folder in a process of its own, with nothing but deployment imported, and prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from cases import Setup

from anomalib_ncd.deploy import AnomalyClassifier, Manifest
from anomalib_ncd.deploy import classifier as steps
from anomalib_ncd.deploy.line.folder_run import classify_folder
from anomalib_ncd.deploy.packing.artefact import NetworkEntry
from anomalib_ncd.regions.settings import RegionSettings

SIDE_PX = 96
NUM_IMAGES = 20_000
EARLY = 1_000
STAGES = {
    "read_image": "read",
    "cut_regions": "crops",
    "eval_views": "crops",
    "whole_view": "crops",
    "_run": "encoder",
    "classify_image": "merge",
}
"""Which stage a function of the classifier's module belongs to."""
NAMES = ("normal", *(f"class_{number}" for number in range(1, 6)))


class EvenEncoder:
    """Says of every region that all classes are equally likely, and takes no time."""

    def __init__(self) -> None:
        self.input_shapes: dict[str, tuple[int, ...]] = {"image": (), "mask": ()}
        self.output_names = ["class_probabilities", "region_feature", "neighbour_similarity"]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make up predictions."""
        count = len(inputs["image"])
        return {
            "class_probabilities": np.full((count, len(NAMES)), 1 / len(NAMES), dtype=np.float32),
            "region_feature": np.zeros((count, 192), dtype=np.float32),
            "neighbour_similarity": np.ones(count, dtype=np.float32),
        }


class GreyDetector:
    """How far a pixel is from grey; notes the memory of the process after the first images."""

    def __init__(self) -> None:
        self.num_images = 0
        self.early_mb = float("nan")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Map of an image."""
        self.num_images += 1
        if self.num_images == EARLY:
            self.early_mb = _resident_mb()
        return np.abs(pixels.astype(np.float32).mean(axis=2) - 120) / 120


class Clock:
    """Adds up the seconds of each stage of the current image."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def attach(self, classifier: AnomalyClassifier) -> None:
        """Time the stages of a classifier."""
        self._time(classifier.detector, "detect", "detector")
        for name, stage in STAGES.items():
            self._time(steps, name, stage)

    def _time(self, owner: Any, name: str, stage: str) -> None:
        function = getattr(owner, name)
        function = getattr(function, "__wrapped__", function)  # another clock may have timed it before

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[stage] += time.perf_counter() - start

        setattr(owner, name, timed)


def many(way: Literal["stream", "folder"], setup: Setup) -> dict[str, float]:
    """Images a second and memory over many images without networks, so that all the rest is measured."""
    images = setup.work / "images"
    _draw(images, NUM_IMAGES)
    command = [sys.executable, __file__, way, str(images), str(setup.work / "results")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])


def latency(runtime: Literal["eager", "onnx", "openvino"], setup: Setup) -> dict[str, float]:
    """Milliseconds from an image's file to its class on drawn plates, one image at a time, by stage."""
    # Torch and anomalib are for this function alone.
    from anomalib_ncd import AnomalyNcd, NcdDataModule, discover  # noqa: PLC0415
    from anomalib_ncd.deploy.packing.build import build_artefact, classifier_of_run  # noqa: PLC0415
    from anomalib_ncd.models.offline_detector import build_offline_detector  # noqa: PLC0415
    from anomalib_ncd.regions.reading.listing import list_images  # noqa: PLC0415
    from anomalib_ncd.runs.detector import fit_detector  # noqa: PLC0415
    from anomalib_ncd.synthetic.plates import generate_dataset  # noqa: PLC0415

    plates = generate_dataset(setup.work / "plates", num_train_good=20, num_per_kind=16)
    run = setup.work / "run"
    detector = fit_detector(build_offline_detector(), list_images(plates.train_good_dir), setup.work)
    model = AnomalyNcd("offline", num_novel_classes=len(plates.kinds) + 1)
    discover(model, NcdDataModule(plates.test_dir, detector), run, "cluster")
    clock = Clock()
    if runtime == "eager":
        classifier = classifier_of_run(run, detector)
    else:
        build_artefact(run, detector=detector, runtime=runtime).save(setup.work / "artefact")
        classifier = AnomalyClassifier.load(setup.work / "artefact")
    clock.attach(classifier)
    return _times(classifier, clock, sorted(plates.test_dir.rglob("*.png")))


def _times(classifier: AnomalyClassifier, clock: Clock, paths: list[Path]) -> dict[str, float]:
    """Median milliseconds of each stage and of all together, and their 99th percentile; five images warm up."""
    stages: dict[str, list[float]] = defaultdict(list)
    for number, path in enumerate([*paths[:5], *paths]):
        clock.seconds.clear()
        classifier.predict(path)
        for stage, seconds in [*clock.seconds.items(), ("together", sum(clock.seconds.values()))]:
            if number >= 5:
                stages[stage].append(1e3 * seconds)
    found = {f"{stage}_ms": float(np.median(values)) for stage, values in stages.items()}
    return found | {"together_p99_ms": float(np.percentile(stages["together"], 99))}


def _draw(folder: Path, number: int) -> None:
    """Grey plates with a square or a line."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(number):
        pixels = np.full((SIDE_PX, SIDE_PX, 3), rng.integers(110, 130), np.uint8)
        top, left = rng.integers(8, SIDE_PX - 30, 2)
        pixels[top : top + (20 if index % 2 else 6), left : left + 20] = 230 if index % 3 else 20
        cv2.imwrite(str(folder / f"{index:06d}.png"), pixels)


def _classify(way: str, images: Path, output: Path) -> dict[str, float]:
    """Classify a folder without networks."""
    manifest = Manifest(NAMES, 0, (0.1, 1.0), RegionSettings(), 224, NetworkEntry("onnx", ()), merging_temperature=50.0)
    detector, paths = GreyDetector(), sorted(images.iterdir())
    classifier = AnomalyClassifier(manifest, EvenEncoder(), detector, keep_masks=False)
    start = time.process_time()
    if way == "stream":
        found = sum(result.error is None for result in classifier.stream(paths))
    else:
        found = classify_folder(classifier, images, output, pictures=False).classified
    seconds = time.process_time() - start
    assert found == len(paths)
    rate = len(paths) / seconds
    return {"images_a_second": rate, "early_mb": detector.early_mb, "mb": _resident_mb(), "images": len(paths)}


def _resident_mb() -> float:
    """Memory that the process holds now, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    print(json.dumps(_classify(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
