# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A small generated industrial data set in the layout of MVTec AD, for demos, notebooks and tests.

The same settings give the same bytes, and an image doesn't depend on how many others are drawn with it.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_ncd.regions.writing import whole_file, write_file, write_image
from anomalib_ncd.synthetic.plate_defects import DEFECT_KINDS, check_kinds
from anomalib_ncd.synthetic.plate_images import MIN_IMAGE_SIZE_PX, draw_part, make_image, simulate_anomaly_map
from anomalib_ncd.synthetic.shapes import BoolMask

__all__ = ["DEFECT_KINDS", "GeneratedDataset", "generate_dataset"]

_GENERATOR_VERSION = 1  # raise it when the same settings would give other bytes
_SETTINGS_FILE = "generated.json"
# Streams of random numbers: part of each image's seed, never renumber. Kinds follow at 100 and 200.
_TRAIN_GOOD, _TEST_GOOD, _MIXED, _TEST_KIND, _BASE_KIND = 0, 1, 2, 100, 200


@dataclass(frozen=True)
class GeneratedDataset:
    """Where the parts of a generated data set, in the layout of MVTec AD, lie; what was not asked for is ``None``."""

    root: Path
    kinds: tuple[str, ...]
    train_good_dir: Path  # good images for the detector's training
    test_dir: Path  # test images, one folder each for good, every kind, and mixed (two kinds in one image)
    ground_truth_dir: Path  # masks (0 or 255) of the test images with defects: <kind>/000_mask.png
    labels_csv: Path  # columns image (below test_dir) and class; of mixed images that of the larger defect
    defects_csv: Path  # columns image, kind, x0, y0, x1, y1 (half-open pixels), area (pixels)
    anomaly_maps_dir: Path | None  # simulated maps of all test images, <kind>/000.npy, float32 in 0..1
    base_dir: Path | None  # square crops around labelled defects of other kinds, images/<kind>/000.png, and masks


@dataclass(frozen=True)
class _Settings:
    """What decides the bytes of a data set."""

    kinds: list[str]
    num_train_good: int
    num_test_good: int
    num_per_kind: int
    num_mixed: int
    size: int
    seed: int
    anomaly_maps: bool
    base_kinds: list[str]
    num_per_base_kind: int
    generator_version: int = _GENERATOR_VERSION

    def rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])


def generate_dataset(
    folder: str | Path,
    *,
    kinds: Sequence[str] = DEFECT_KINDS[:5],
    num_train_good: int = 30,
    num_test_good: int = 15,
    num_per_kind: int = 15,
    num_mixed: int = 4,
    size: int = 256,
    seed: int = 0,
    anomaly_maps: bool = False,
    base_kinds: Sequence[str] | None = None,
    num_per_base_kind: int = 20,
) -> GeneratedDataset:
    """Generate images of good and defective metal plates with masks, labels and, if wanted, maps and base crops.

    Args:
        folder: A new or empty folder, or one with a data set of the same settings, which is left as it is.
        kinds: Kinds of defect of the test images, from ``DEFECT_KINDS``.
        num_train_good: Number of good images for training.
        num_test_good: Number of good test images.
        num_per_kind: Number of test images per kind, each with one defect.
        num_mixed: Number of test images with defects of two kinds.
        size: Height and width in pixels, 64 or more.
        seed: Seed of everything, 0 or more.
        anomaly_maps: Whether to write simulated anomaly maps of the test images.
        base_kinds: Kinds of defect of the labelled base crops; none may be in ``kinds``.
        num_per_base_kind: Number of base crops per base kind.

    Raises:
        FileExistsError: If the folder holds anything else.
        ValueError: If a kind, a number or the seed is wrong.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dataset = generate_dataset(folder, kinds=["hole"], num_per_kind=2, num_mixed=0, size=64)
        ...     sorted(path.name for path in (dataset.test_dir / "hole").iterdir())
        ['000.png', '001.png']
    """
    counts = (num_train_good, num_test_good, num_per_kind, num_mixed)
    bases = list(base_kinds or [])
    settings = _Settings(list(kinds), *counts, size, seed, anomaly_maps, bases, num_per_base_kind)
    _check_settings(settings)
    root = Path(folder)
    dataset = GeneratedDataset(
        root=root,
        kinds=tuple(settings.kinds),
        train_good_dir=root / "train" / "good",
        test_dir=root / "test",
        ground_truth_dir=root / "ground_truth",
        labels_csv=root / "labels.csv",
        defects_csv=root / "defects.csv",
        anomaly_maps_dir=root / "anomaly_maps" if settings.anomaly_maps else None,
        base_dir=root / "base" if settings.base_kinds else None,
    )
    if not _is_generated(dataset.root, settings):
        dataset.root.mkdir(parents=True, exist_ok=True)
        _write_dataset(dataset, settings)
        # Written last: a folder that was left half done is never taken for a whole one.
        write_file(dataset.root / _SETTINGS_FILE, json.dumps(asdict(settings), indent=2) + "\n")
    return dataset


def _check_settings(settings: _Settings) -> None:
    check_kinds(settings.kinds, "kinds")
    check_kinds(settings.base_kinds, "base_kinds")
    shared = sorted(set(settings.kinds) & set(settings.base_kinds))
    if shared:
        msg = f"`base_kinds` must differ from `kinds`, but {shared} are in both; base classes are other defects."
        raise ValueError(msg)
    if settings.size < MIN_IMAGE_SIZE_PX:
        msg = f"`size` must be at least {MIN_IMAGE_SIZE_PX} pixels, got {settings.size}."
        raise ValueError(msg)
    for name in ("num_train_good", "num_test_good", "num_per_kind", "num_mixed", "num_per_base_kind", "seed"):
        if getattr(settings, name) < 0:
            msg = f"`{name}` must be 0 or more, got {getattr(settings, name)}."
            raise ValueError(msg)
    if settings.num_mixed and len(settings.kinds) < 2:
        msg = f"Mixed images need two `kinds`, got {settings.kinds}; give another kind or set `num_mixed` to 0."
        raise ValueError(msg)


def _is_generated(root: Path, settings: _Settings) -> bool:
    """Whether the folder already holds this data set; refuse to touch anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    file = root / _SETTINGS_FILE
    if not file.is_file():
        msg = f"{root} is not empty and holds no finished generated data set; choose another folder or remove it."
        raise FileExistsError(msg)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    wanted = asdict(settings)
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        msg = f"{root} holds a data set generated with other {differing}; choose another folder or remove it."
        raise FileExistsError(msg)
    return True


def _write_dataset(dataset: GeneratedDataset, settings: _Settings) -> None:
    for index in range(settings.num_train_good):
        image = draw_part(settings.rng(_TRAIN_GOOD, index), settings.size)
        write_image(dataset.train_good_dir / f"{index:03d}.png", image, sync=False)
    streams: list[tuple[list[str], int, int]] = [([], _TEST_GOOD, index) for index in range(settings.num_test_good)]
    for kind in settings.kinds:
        stream = _TEST_KIND + DEFECT_KINDS.index(kind)
        streams += [([kind], stream, index) for index in range(settings.num_per_kind)]
    for index in range(settings.num_mixed):
        pair = settings.rng(_MIXED, index, 1).choice(settings.kinds, 2, replace=False).tolist()
        streams.append((pair, _MIXED, index))
    labels: list[Sequence[str | int]] = [("image", "class")]
    defects: list[Sequence[str | int]] = [("image", "kind", "x0", "y0", "x1", "y1", "area")]
    for kinds, stream, index in streams:
        path, masks = _write_test_image(dataset, settings, kinds, stream, index)
        labels.append((path, max(masks, key=lambda kind: int(masks[kind].sum())) if masks else "good"))
        defects += [(path, kind, *_box(masks[kind]), int(masks[kind].sum())) for kind in kinds]
    for kind in settings.base_kinds:
        for index in range(settings.num_per_base_kind):
            rng = settings.rng(_BASE_KIND + DEFECT_KINDS.index(kind), index)
            image, masks = make_image([kind], rng, settings.size)
            square = _square(masks[kind])
            write_image(dataset.root / f"base/images/{kind}/{index:03d}.png", image[square], sync=False)
            write_image(dataset.root / f"base/masks/{kind}/{index:03d}.png", masks[kind][square], sync=False)
    _write_csv(dataset.labels_csv, labels)
    _write_csv(dataset.defects_csv, defects)


def _write_test_image(
    dataset: GeneratedDataset, settings: _Settings, kinds: list[str], stream: int, index: int
) -> tuple[str, dict[str, BoolMask]]:
    """Draw one test image and write it with its mask and map; returns its path and the mask of each kind."""
    folder = "mixed" if len(kinds) > 1 else "".join(kinds) or "good"
    image, masks = make_image(kinds, settings.rng(stream, index), settings.size)
    path = f"{folder}/{index:03d}.png"
    write_image(dataset.test_dir / path, image, sync=False)
    mask = np.any([*masks.values(), np.zeros(image.shape[:2], dtype=bool)], axis=0)
    if masks:
        write_image(dataset.ground_truth_dir / folder / f"{index:03d}_mask.png", mask, sync=False)
    if dataset.anomaly_maps_dir is not None:
        file = dataset.anomaly_maps_dir / folder / f"{index:03d}.npy"
        with whole_file(file, sync=False) as unfinished:
            np.save(unfinished, simulate_anomaly_map(mask, settings.rng(stream, index, 2), image.shape[:2]))
    return path, masks


def _box(mask: BoolMask) -> tuple[int, int, int, int]:
    """Half-open bounding box ``x0, y0, x1, y1`` of a mask that is not empty."""
    cols, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def _square(mask: BoolMask) -> tuple[slice, slice]:
    """Rows and columns of a square around a defect: a tenth wider than it, a fifth of the image at least."""
    x0, y0, x1, y1 = _box(mask)
    size = mask.shape[0]
    side = min(size, max(round(1.1 * max(x1 - x0, y1 - y0)), round(0.2 * size)))
    top, left = (min(max((low + high - side) // 2, 0), size - side) for low, high in ((y0, y1), (x0, x1)))
    return slice(top, top + side), slice(left, left + side)


def _write_csv(path: Path, rows: Sequence[Sequence[str | int]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    write_file(path, stream.getvalue(), sync=False)
