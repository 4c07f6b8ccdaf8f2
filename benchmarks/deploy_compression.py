# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What smaller weights cost: files, speed, and how often the class stays what PyTorch in single precision says.

Quantisation is calibrated on MTD-mini; all is compared on the test images outside of it. No label is read.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from deploy_setup import Setup
from deploy_stages import SavedMapDetector, StageClock
from mebin_quality import read_grey

from anomalib_ncd.deploy import AnomalyClassifier, ImageResult
from anomalib_ncd.deploy.packing.build import build_artefact, classifier_of_run

EXPORTS = {
    "torch": ("torch", None),
    "ONNX": ("onnx", None),
    "OpenVINO": ("openvino", None),
    "OpenVINO, fp16": ("openvino", "fp16"),
    "OpenVINO, int8": ("openvino", "int8"),
    "OpenVINO, int8_ptq": ("openvino", "int8_ptq"),
    "OpenVINO, int8_acq": ("openvino", "int8_acq"),
}
COLUMNS = (
    "encoder",
    "file MB",
    "packed in s",
    "ms a region",
    "largest difference",
    "equal class, regions",
    "equal class, images",
)


def compression_table(setup: Setup, exports: list[str], every: int) -> str:
    """A row for each export, compared with the run itself in PyTorch on every n-th image outside of MTD-mini."""
    mini = set(setup.mini_images())
    paths = [path for path in sorted(setup.images.rglob("*.jpg")) if path not in mini][::every]
    maps = {path: read_grey((setup.maps / path.relative_to(setup.images)).with_suffix(".png")) for path in paths}
    detector = SavedMapDetector(maps)
    run = setup.run(own_detector=False)
    clock = StageClock()
    eager = _results(classifier_of_run(run, detector, timer=clock), clock, paths)
    num_regions = sum(len(result.regions) for result in eager)
    print(f"{setup.backbone}, {setup.num_threads} threads, {len(paths)} images, {num_regions} regions; eager: ", end="")
    print(f"{_per_region(clock, num_regions):.1f} ms a region\n", flush=True)
    rows = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for name in exports:
        runtime, compression = EXPORTS[name]
        folder = setup.output / f"encoder_{setup.backbone}_{runtime}_{compression}"
        seconds = _pack(setup, run, folder, runtime, compression)
        num_bytes = sum(file.stat().st_size for file in folder.glob("encoder.*"))
        classifier = AnomalyClassifier.load(folder, detector, timer=clock, num_threads=setup.num_threads)
        found = _results(classifier, clock, paths)
        cells = [name, f"{num_bytes / 1e6:.1f}", seconds, f"{_per_region(clock, num_regions):.1f}"]
        rows.append("| " + " | ".join([*cells, *_agreement(found, eager)]) + " |")
    return "\n".join(rows)


def _pack(setup: Setup, run: Path, folder: Path, runtime: str, compression: str | None) -> str:
    """Pack the encoder if it isn't yet, and say how long that took."""
    note = folder.with_suffix(".seconds")
    if not folder.exists():
        start = time.perf_counter()
        datamodule = setup.datamodule() if compression in {"int8_ptq", "int8_acq"} else None
        build_artefact(run, folder, runtime=runtime, compression=compression, datamodule=datamodule)  # type: ignore[arg-type]
        note.write_text(f"{time.perf_counter() - start:.0f}")
    return note.read_text()


def _results(classifier: AnomalyClassifier, clock: StageClock, paths: list[Path]) -> list[ImageResult]:
    """Classify the images one by one."""
    clock.images.clear()
    results = []
    for path in paths:
        clock.next_image()
        results.append(classifier.predict(path))
    return results  # type: ignore[return-value]


def _per_region(clock: StageClock, num_regions: int) -> float:
    """Mean time of the encoder."""
    return float(clock.milliseconds(["encoder"]).sum()) / num_regions


def _agreement(found: list[ImageResult], wanted: list[ImageResult]) -> list[str]:
    """Largest difference of a region's probabilities; shares of regions and images with the same class."""
    pairs = [pair for one, other in zip(found, wanted, strict=True) for pair in zip(one.regions, other.regions)]  # noqa: B905
    difference = max(np.abs(np.subtract(a.probabilities, b.probabilities)).max() for a, b in pairs)
    regions = np.mean([a.class_id == b.class_id for a, b in pairs])
    images = np.mean([a.class_id == b.class_id for a, b in zip(found, wanted, strict=True)])
    return [f"{difference:.1e}", f"{regions:.1%}", f"{images:.1%}"]
