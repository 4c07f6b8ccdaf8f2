# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The data sets of the cases, as arguments of the datamodule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case

from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

GAP_BETWEEN_TILES = 80


def datamodule_arguments(case: Case, data: Path | None, work: Path) -> dict[str, Any]:
    """Arguments of :class:`anomalib_ncd.NcdDataModule` for a case.

    Args:
        case: What is measured.
        data: Folder with ``mtd``, ``mtd_anomaly_maps``, ``steel_base`` and ``transistor``; not needed for drawn plates.
        work: Folder for what is drawn or linked.

    Raises:
        FileNotFoundError: If the data set isn't there.
    """
    arguments = _arguments(case, data, work)
    if case.num_normal is not None:
        images = sorted(path for path in arguments["normal_images"].iterdir())
        chosen = np.random.default_rng(0).permutation(len(images))[: case.num_normal]
        arguments["normal_images"] = _linked([images[index] for index in chosen], work / "few")
    return arguments


def _arguments(case: Case, data: Path | None, work: Path) -> dict[str, Any]:
    """:func:`datamodule_arguments` with all normal images."""
    if case.data.startswith("plates"):
        return _plates(case, work / case.data)
    if data is None:
        msg = f"The case {case.name!r} needs `--data`, a folder with the data set {case.data!r}."
        raise FileNotFoundError(msg)
    if case.data == "deeppcb":
        root, normal = data / "deeppcb", data / "deeppcb" / "normal" if case.normal else None
        folders = {"images": root / "images", "anomaly_maps": root / "anomaly_maps", "normal_images": normal}
        return folders | {"regions": RegionSettings(method="elements")}
    arguments: dict[str, Any] = {"labels": "folders"}
    if case.data == "transistor":
        root = data / "transistor"
        arguments |= {"images": root / "test", "anomaly_maps": root / "anomaly_maps"}
        arguments |= {"normal_images": root / "normal" if case.normal else None}
    else:
        arguments |= {"images": data / "mtd" / "test", "anomaly_maps": data / "mtd_anomaly_maps"}
        arguments |= {"image_list": data / "mtd_mini.txt"} if case.data == "mini" else {}
        if case.normal == "other tiles":
            arguments["normal_images"] = link_other_tiles(data, work / "other_tiles")
        elif case.normal or case.base == "synthetic":
            arguments["normal_images"] = data / "mtd" / "train" / "good"
        if case.base == "labelled":
            arguments["base"] = data / "steel_base"
            arguments |= {"base_list": data / "steel_base_mini.txt"} if case.data == "mini" else {}
    return arguments | ({"base": "synthetic"} if case.base == "synthetic" else {})


def num_classes(case: Case) -> int:
    """True number of classes, *good* included."""
    if case.data.startswith("plates"):
        return _num_kinds(case) + 1
    return 5 if case.data == "transistor" else 6  # as many kinds as DeepPCB has


def _num_kinds(case: Case) -> int:
    """Kinds of defect on drawn plates: the number behind the name, else five."""
    return int(case.data.removeprefix("plates") or 5)


def _plates(case: Case, folder: Path) -> dict[str, Any]:
    """Drawn plates with simulated maps."""
    kinds = DEFECT_KINDS[: _num_kinds(case)]
    drawn = generate_dataset(
        folder,
        kinds=kinds,
        num_train_good=40,
        num_test_good=30,
        num_per_kind=30,
        num_mixed=0,
        anomaly_maps=True,
        base_kinds=[kind for kind in DEFECT_KINDS if kind not in kinds][:4] or None,
    )
    return {
        "images": drawn.test_dir,
        "anomaly_maps": drawn.anomaly_maps_dir,
        "labels": "folders",
        "normal_images": drawn.train_good_dir if case.normal else None,
        "base": drawn.root / "base" if case.base == "labelled" else None,
    }


def link_other_tiles(data: Path, folder: Path) -> Path:
    """Link the good training images of the tiles that no test image of Magnetic Tile Defect shows.

    A tile was photographed under several lightings, one after the other, and its images lie in both parts of the data
    set. Their names end with a number that counts up; where it makes a leap, another tile begins.
    """
    images = [*(data / "mtd" / "train" / "good").iterdir(), *(data / "mtd" / "test").rglob("*.jpg")]
    numbered = sorted((int(path.stem.rsplit("_", 1)[1]), path) for path in images)
    tiles: list[list[Path]] = []
    last = -math.inf
    for number, path in numbered:
        if number - last > GAP_BETWEEN_TILES:
            tiles.append([])
        tiles[-1].append(path)
        last = number
    return _linked((path for tile in tiles if all("train" in path.parts for path in tile) for path in tile), folder)


def _linked(paths: Iterable[Path], folder: Path) -> Path:
    """A folder of links."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        link = folder / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    return folder
