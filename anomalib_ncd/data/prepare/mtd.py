# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Magnetic Tile Defect (Huang, Qiu and Yuan, The Visual Computer 2020)."""

import logging
from pathlib import Path, PurePosixPath

import numpy as np

from anomalib_ncd.data.prepare.layout import (
    PlannedImage,
    PreparedData,
    find_root,
    list_folders,
    list_pictures,
    refuse_missing_masks,
    write_layout,
)
from anomalib_ncd.regions.reading.listing import read_text

logger = logging.getLogger(__name__)

GOOD_FOLDER = "MT_Free"
DEFECT_FOLDERS = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven")
EXPECTED = "MT_Free/Imgs and MT_Blowhole/Imgs, MT_Break/Imgs and so on"


def prepare_mtd(
    raw: str | Path, out: str | Path, train_list: str | Path | None = None, train_ratio: float = 0.8, seed: int = 0
) -> PreparedData:
    """Put Magnetic Tile Defect, as published, into the layout of MVTec AD.

    Published are folders ``MT_<kind>/Imgs`` with images ``.jpg`` and masks ``.png`` of the same stem. The good tiles,
    ``MT_Free``, are parted into ``train/good`` and ``test/good``; their black masks are left out.

    Args:
        raw: Unpacked archive.
        out: Target folder.
        train_list: Text file with the good images to train on, one name a line, with or without folder and suffix;
            DifferNet's list is the common one. By default a share of them is drawn at random.
        train_ratio: That share.
        seed: Seed of that draw.
    """
    root = find_root(raw, lambda folder: (folder / GOOD_FOLDER / "Imgs").is_dir(), EXPECTED)
    good = _images(root / GOOD_FOLDER)
    train = _listed(good, Path(train_list)) if train_list is not None else _drawn(good, train_ratio, seed)
    plan = [
        PlannedImage(path, "train" if path.stem in train else "test", "good", path.name)
        for path in sorted(good, key=lambda path: (path.stem not in train, path.stem))
    ]
    plan += _defects(root)
    return write_layout(plan, out)


def _images(folder: Path) -> list[Path]:
    """Images of a class; the PNG files next to them are masks."""
    images = [path for path in list_pictures(folder / "Imgs") if path.suffix.lower() != ".png"]
    if not images:
        msg = f"{folder / 'Imgs'} holds no .jpg images; unpack the archive anew."
        raise FileNotFoundError(msg)
    return images


def _defects(root: Path) -> list[PlannedImage]:
    """All images of defects with their masks."""
    folders = [
        folder
        for folder in list_folders(root)
        if folder.name.startswith("MT_") and folder.name != GOOD_FOLDER and (folder / "Imgs").is_dir()
    ]
    absent = sorted(set(DEFECT_FOLDERS) - {folder.name for folder in folders})
    if not folders:
        msg = f"Looked in {root} for {EXPECTED}, but found no kind of defect. Unpack the archive anew."
        raise FileNotFoundError(msg)
    if absent:
        logger.warning("%s lacks %s of the published data; going on without.", root, ", ".join(absent))
    plan, missing = [], []
    for folder in folders:
        for image in _images(folder):
            mask = image.with_suffix(".png")
            if not mask.is_file():
                missing.append(image)
            plan.append(PlannedImage(image, "test", folder.name, image.name, mask))
    refuse_missing_masks(missing, "of the same stem (.png) next to them")
    return plan


def _listed(good: list[Path], train_list: Path) -> set[str]:
    """Stems that a list names."""
    lines = [line for line in map(str.strip, read_text(train_list).splitlines()) if line and not line.startswith("#")]
    stems = {PurePosixPath(line.replace("\\", "/")).stem for line in lines}
    unknown = sorted(stems - {path.stem for path in good})
    if unknown or not stems:
        msg = (
            f"{train_list} names {len(stems)} images, of which {len(unknown)} are not in {good[0].parent}"
            + (f", such as {unknown[:3]}. " if unknown else ". ")
            + f"It should name good images, one a line, like {good[0].name}."
        )
        raise ValueError(msg)
    return stems


def _drawn(good: list[Path], train_ratio: float, seed: int) -> set[str]:
    """Stems of a share of the images, drawn at random."""
    if not 0 < train_ratio < 1:
        msg = f"`train_ratio` must lie between 0 and 1, got {train_ratio}."
        raise ValueError(msg)
    stems = sorted(path.stem for path in good)
    count = min(max(int(len(stems) * train_ratio), 1), len(stems))
    return {stems[index] for index in np.random.default_rng(seed).permutation(len(stems))[:count]}
