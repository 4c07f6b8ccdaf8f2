# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""MEBin's masks beside those of other thresholds, in numbers and in pictures; run by benchmarks/mebin.py.

Half of the images, drawn by class, fits what a method has to fit: MEBin's score range and anomalib's F1-adaptive
threshold. The other half is scored, at the size of the maps, over all its pixels together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from anomalib_ncd.regions.mebin import BinarizedMap, binarize, fit_score_range
from anomalib_ncd.synthetic.plates import generate_dataset

Method = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """An image, its 8-bit anomaly map and its ground truth, both of the map's size."""

    kind: str
    image_path: Path
    anomaly_map: np.ndarray
    ground_truth: np.ndarray


def read_grey(path: Path) -> np.ndarray:
    """Read an 8-bit grey image."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        msg = f"{path} is missing or no image."
        raise FileNotFoundError(msg)
    return np.asarray(image, dtype=np.uint8)


def read_mtd(data: Path) -> list[Sample]:
    """Read Magnetic Tile Defect's test images."""
    return [_mtd_sample(data, path) for path in sorted((data / "mtd_anomaly_maps").rglob("*.png"))]


def _mtd_sample(data: Path, map_path: Path) -> Sample:
    kind, stem = map_path.parent.name, map_path.stem
    anomaly_map = read_grey(map_path)
    mask_path = data / "mtd" / "ground_truth" / kind / f"{stem}.png"
    mask = read_grey(mask_path) if mask_path.is_file() else np.zeros_like(anomaly_map)
    mask = cv2.resize(mask, (anomaly_map.shape[1], anomaly_map.shape[0]), interpolation=cv2.INTER_NEAREST)
    return Sample(kind, data / "mtd" / "test" / kind / f"{stem}.jpg", anomaly_map, np.asarray(mask > 127))


def split(samples: Sequence[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """Halve the samples of each kind."""
    rng = np.random.default_rng(seed)
    halves: tuple[list[Sample], list[Sample]] = ([], [])
    for kind in sorted({sample.kind for sample in samples}):
        of_kind = [sample for sample in samples if sample.kind == kind]
        for position, index in enumerate(rng.permutation(len(of_kind))):
            halves[position % 2].append(of_kind[index])
    return halves


def f1_adaptive_threshold(samples: Sequence[Sample]) -> int:
    """Find the threshold with the best pixel F1, from histograms: the maps have 256 levels."""
    positive, negative = np.zeros(256), np.zeros(256)
    for sample in samples:
        positive += np.bincount(sample.anomaly_map[sample.ground_truth], minlength=256)
        negative += np.bincount(sample.anomaly_map[~sample.ground_truth], minlength=256)
    # Above threshold t: what lies in the bins from t + 1 on.
    true_positive = positive.sum() - positive.cumsum()
    false_positive = negative.sum() - negative.cumsum()
    return int(np.argmax(2 * true_positive / (true_positive + false_positive + positive.sum())))


def fit_methods(samples: Sequence[Sample]) -> dict[str, Method]:
    """Make the methods that are compared, fitted on some samples."""
    maps = [sample.anomaly_map for sample in samples]
    f1_threshold = f1_adaptive_threshold(samples)
    low, high = fit_score_range(maps)
    robust_high = float(np.quantile([anomaly_map.max() for anomaly_map in maps], 0.99))
    return {
        "F1-adaptive (default)": lambda anomaly_map: anomaly_map > f1_threshold,
        "Otsu": lambda anomaly_map: cv2.threshold(anomaly_map, 0, 1, cv2.THRESH_OTSU)[1] > 0,
        "fixed 0.5": lambda anomaly_map: anomaly_map > 127.5,
        "MEBin": lambda anomaly_map: binarize(anomaly_map, (low, high)).mask,
        "MEBin, quantiles (0, 0.99)": lambda anomaly_map: binarize(anomaly_map, (low, robust_high)).mask,
        "MEBin, no erosion": lambda anomaly_map: binarize(anomaly_map, (low, high), erosion_size=0).mask,
    }


def scores(method: Method, samples: Sequence[Sample]) -> list[float]:
    """Return false-positive rate, false-negative rate, F1, and shares of empty masks on good and on other images."""
    masks = np.stack([method(sample.anomaly_map) for sample in samples])
    truth = np.stack([sample.ground_truth for sample in samples])
    is_good = np.array([sample.kind == "good" for sample in samples])
    is_empty = np.array([not mask.any() for mask in masks])
    true_positive, false_positive = (masks & truth).sum(), (masks & ~truth).sum()
    false_negative = (truth & ~masks).sum()
    return [
        false_positive / (~truth).sum(),
        false_negative / truth.sum(),
        2 * true_positive / (2 * true_positive + false_positive + false_negative),
        is_empty[is_good].mean(),
        is_empty[~is_good].mean(),
    ]


def quality_table(data: Path, seed: int) -> str:
    """Score all methods on Magnetic Tile Defect, as a Markdown table."""
    fitting, scored = split(read_mtd(data), seed)
    lines = [
        f"{len(fitting)} images fitted on, {len(scored)} scored.\n",
        "| threshold | false-positive rate | false-negative rate | pixel F1 | empty on good | empty on defective |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, method in fit_methods(fitting).items():
        lines.append("| " + " | ".join([name, *(f"{value:.3f}" for value in scores(method, scored))]) + " |")
    return "\n".join(lines)


def draw_mtd_figure(data: Path, seed: int, output: Path) -> None:
    """Draw one image of each kind."""
    fitting, scored = split(read_mtd(data), seed)
    kinds = sorted({sample.kind for sample in scored}, key=lambda kind: kind == "good")
    chosen = [next(sample for sample in scored if sample.kind == kind) for kind in kinds]
    draw_figure(chosen, fitting, output)


def draw_generated_figure(output: Path) -> None:
    """Draw generated images with simulated maps, free to be shown."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = generate_dataset(folder, num_train_good=0, anomaly_maps=True, seed=2)
        paths = sorted((dataset.root / "anomaly_maps").rglob("*.npy"))
        fitting, scored = split([_generated_sample(dataset.root, path) for path in paths], seed=0)
        kinds = [*dataset.kinds[:4], "mixed", "good"]
        chosen = [next(sample for sample in scored if sample.kind == kind) for kind in kinds]
        draw_figure(chosen, fitting, output)


def _generated_sample(root: Path, map_path: Path) -> Sample:
    kind, stem = map_path.parent.name, map_path.stem
    anomaly_map = np.round(np.load(map_path) * 255).astype(np.uint8)
    mask_path = root / "ground_truth" / kind / f"{stem}_mask.png"
    mask = read_grey(mask_path) if mask_path.is_file() else np.zeros_like(anomaly_map)
    return Sample(kind, root / "test" / kind / f"{stem}.png", anomaly_map, np.asarray(mask > 127))


def draw_figure(samples: Sequence[Sample], fitting: Sequence[Sample], output: Path) -> None:
    """Draw a row per sample: image with the true outline, map, and the mask of each method."""
    methods = {name: method for name, method in fit_methods(fitting).items() if "," not in name}
    score_range = fit_score_range([sample.anomaly_map for sample in fitting])
    columns = ["image", "anomaly map", *methods]
    figure = Figure(figsize=(1.75 * len(columns), 1.8 * len(samples) + 0.3), layout="constrained")
    axes = figure.subplots(len(samples), len(columns), squeeze=False)
    for row, sample in zip(axes, samples, strict=True):
        height, width = sample.anomaly_map.shape
        with Image.open(sample.image_path) as file:
            image = np.asarray(file.convert("RGB").resize((width, height), Image.Resampling.BOX))
        row[0].imshow(image)
        row[0].set_ylabel(sample.kind.removeprefix("MT_").replace("_", " "), fontsize=10)
        row[1].imshow(sample.anomaly_map, cmap="inferno", vmin=0, vmax=255)
        for axis, method in zip(row[2:], methods.values(), strict=True):
            axis.imshow(_overlay(image, method(sample.anomaly_map)))
        row[-1].set_xlabel(_caption(binarize(sample.anomaly_map, score_range)), fontsize=8)
        for axis in (row[0], *row[2:]):
            if sample.ground_truth.any():
                width_pt = 1.0 if axis is row[0] else 0.5
                axis.contour(sample.ground_truth, [0.5], colors="deepskyblue", linewidths=width_pt)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.supxlabel("Blue: outline of the true defect. Red: mask.", fontsize=9)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=90)


def _overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lay a mask over an image in red."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) * 0.75 + 48
    return np.where(mask[..., None], 0.25 * grey + 0.75 * np.array([255, 40, 40]), grey).astype(np.uint8)


def _caption(result: BinarizedMap) -> str:
    """Say what MEBin found."""
    plural = "y" if result.num_components == 1 else "ies"
    return f"{result.num_components} anomal{plural}, threshold {result.threshold:.0f}"
