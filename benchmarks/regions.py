# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the region stage finds, on data sets with known defects.

A defect has a region of its own if a region's mask touches it and no other defect. Ranges are fitted on all maps of a
set, without normal images. Defective images whose ground truth is empty count as images whose defect isn't touched.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anomalib_ncd.data.labels import Defect, components, read_defects
from anomalib_ncd.metrics.defects import count_found, touches
from anomalib_ncd.regions.cutting import cut_regions, fit_range
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.synthetic.plate_images import make_image, simulate_anomaly_map

METHODS = {"elements": RegionSettings(method="elements"), "mebin": RegionSettings(method="mebin")}
PLATES_A_KIND = 15
REPEATS = 10
KINDS = (("scratch",), ("dent",), ("stain",), ("scratch", "dent"), ())


@dataclass(frozen=True)
class Sample:
    """A map, the size of its image, and where its defects are.

    Attributes:
        anomaly_map: ``(h, w)``.
        size_hw: Size of the image.
        is_good: Whether the image has no defect.
        defects: In pixels of the image; unknown where ``None``.
    """

    anomaly_map: np.ndarray
    size_hw: tuple[int, int]
    is_good: bool
    defects: list[Defect] | None


def read_grey(path: Path) -> np.ndarray:
    """Read an 8-bit grey image."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        msg = f"{path} is missing or no image."
        raise FileNotFoundError(msg)
    return np.asarray(image)


def read_mtd(data: Path) -> list[Sample]:
    """Magnetic Tile Defect: a defect is a component of the ground truth."""
    samples = []
    for path in sorted((data / "mtd_anomaly_maps").rglob("*.png")):
        kind, stem = path.parent.name, path.stem
        size_hw = read_grey(data / "mtd" / "test" / kind / f"{stem}.jpg").shape[:2]
        truth = data / "mtd" / "ground_truth" / kind / f"{stem}.png"
        defects = [] if kind == "good" else components(read_grey(truth) > 127)
        samples.append(Sample(read_grey(path), size_hw, kind == "good", defects))
    return samples


def read_deeppcb(data: Path) -> list[Sample]:
    """DeepPCB: a defect is a box."""
    maps = list_images(data / "deeppcb" / "anomaly_maps")
    defects = read_defects(maps, data / "deeppcb" / "regions.csv")
    pairs = zip(maps, defects, strict=True)
    return [Sample(read_grey(file.path), (640, 640), is_good=False, defects=boxes) for file, boxes in pairs]


def read_transistor(data: Path) -> list[Sample]:
    """Transistor: it is only known which images are good."""
    maps = sorted((data / "transistor" / "anomaly_maps").rglob("*.png"))
    return [Sample(read_grey(path), (512, 512), path.parent.name == "good", None) for path in maps]


def draw_plates(count: int) -> list[Sample]:
    """Drawn plates: a defect is one of those that were painted."""
    rng = np.random.default_rng(3)
    samples = []
    for kinds in KINDS:
        for _ in range(count):
            image, masks = make_image(kinds, rng)
            mask = np.any([np.zeros(image.shape[:2], dtype=bool), *masks.values()], axis=0)
            defects = [Defect(name, (0, 0, *own.shape[::-1]), own) for name, own in masks.items()]
            samples.append(Sample(simulate_anomaly_map(mask, rng), image.shape[:2], not kinds, defects))
    return samples


def measure(samples: list[Sample], settings: RegionSettings, *, has_masks: bool) -> dict[str, float]:
    """Find the regions of all samples and compare them with the defects; shares in per cent."""
    score_range = fit_range((sample.anomaly_map for sample in samples), settings.method)
    num = Counter[str]()
    ratios, seconds = [], 0.0
    for sample in samples:
        image = np.zeros((*sample.size_hw, 3), dtype=np.uint8)
        start = time.process_time()
        regions = cut_regions(image, sample.anomaly_map, score_range, settings)[1]
        seconds += time.process_time() - start
        regions = [region for region in regions if region.area]
        if sample.is_good:
            num["good"] += 1
            num["alarms"] += bool(regions)
            num["alarm regions"] += len(regions)
            continue
        num["bad"] += 1
        num["none"] += not regions
        if sample.defects is None:
            continue
        table = touches([region.box_xyxy for region in regions], [region.mask for region in regions], sample.defects)
        on_defect = [bool(touched.any()) for touched in table]
        num.update(count_found(table))
        num["touched images"] += any(on_defect)
        if any(on_defect) and has_masks:
            area = sum(region.area for region, is_on in zip(regions, on_defect, strict=True) if is_on)
            ratios.append(area / sum(int(defect.mask.sum()) for defect in sample.defects))
    return {
        "defects with a region of their own": share(num["own"], num["defects"]),
        "regions on no defect": share(num["false"], num["regions"]),
        "defective images touched": share(num["touched images"], num["bad"] if num["defects"] else 0),
        "defective images without": num["none"],
        "good images with a region": share(num["alarms"], num["good"]),
        "regions on good images": num["alarm regions"],
        "mask / defect": round(float(np.median(ratios)), 1) if ratios else float("nan"),
        "ms an image": round(1000 * seconds / len(samples), 2),
    }


def speed(method: str, case: object, setup: object) -> dict[str, float]:
    """Processor milliseconds on one thread: an image of 256² with its map, and one of 640² with 10 elements."""
    del case, setup
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    _, masks = make_image(("stain",), rng)
    plate = cv2.resize(simulate_anomaly_map(masks["stain"], rng).astype(np.float32), (256, 256))
    ten = rng.random((640, 640), dtype=np.float32) * 0.1
    for number in range(10):
        cv2.circle(ten, (100 + 110 * (number % 5), 200 + 240 * (number // 5)), 12, 1.0, -1)
    found = {}
    for name, anomaly_map in (("map_ms", plate), ("image_ms", cv2.GaussianBlur(ten, (0, 0), 3))):
        image = np.zeros((*anomaly_map.shape, 3), dtype=np.uint8)
        score_range = (0.1, float(anomaly_map.max()))
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            for _ in range(REPEATS):
                cut_regions(image, anomaly_map, score_range, METHODS[method])
            times.append((time.process_time() - start) / REPEATS)
        found[name] = 1000 * min(times)
    return found


def share(part: int, whole: int) -> float:
    """Per cent, with one decimal."""
    return round(100 * part / whole, 1) if whole else float("nan")


def read_samples(name: str, data: Path | None) -> list[Sample]:
    """Samples of a data set.

    Args:
        name: ``"mtd"``, ``"deeppcb"``, ``"transistor"`` or ``"plates"``.
        data: Folder of the data sets; not needed for drawn plates.

    Raises:
        FileNotFoundError: If there is no folder.
    """
    if name == "plates":
        return draw_plates(PLATES_A_KIND)
    if data is None:
        msg = f"The regions of {name!r} need `--data`, a folder with that data set."
        raise FileNotFoundError(msg)
    return {"mtd": read_mtd, "deeppcb": read_deeppcb, "transistor": read_transistor}[name](data)
