# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Data sets as their authors published them."""

import logging
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from anomalib_ncd.data.prepare.layout import (
    PlannedImage,
    PreparedData,
    find_root,
    list_folders,
    list_pictures,
    write_layout,
)
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, read_text

logger = logging.getLogger(__name__)

MTD_GOOD = "MT_Free"
MTD_DEFECTS = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven")
MTD_EXPECTED = "MT_Free/Imgs and MT_Blowhole/Imgs, MT_Break/Imgs and so on"
AEBAD_EXPECTED = "train/good/<domain>, test/<class>/<domain> and ground_truth/<class>/<domain> of AeBAD_S"


def prepare_mtd(
    raw: str | Path, out: str | Path, train_list: str | Path | None = None, train_ratio: float = 0.8, seed: int = 0
) -> PreparedData:
    """Put Magnetic Tile Defect (Huang, Qiu and Yuan, The Visual Computer 2020) into the layout of MVTec AD.

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
    root = find_root(raw, lambda folder: (folder / MTD_GOOD / "Imgs").is_dir(), MTD_EXPECTED)
    good = _mtd_images(root / MTD_GOOD)
    train = _listed(good, Path(train_list)) if train_list is not None else _drawn(good, train_ratio, seed)
    plan = [
        PlannedImage(path, "train" if path.stem in train else "test", "good", path.name)
        for path in sorted(good, key=lambda path: (path.stem not in train, path.stem))
    ]
    kinds = [folder for folder in list_folders(root) if folder.name.startswith("MT_") and (folder / "Imgs").is_dir()]
    kinds = [folder for folder in kinds if folder.name != MTD_GOOD]
    absent = sorted(set(MTD_DEFECTS) - {folder.name for folder in kinds})
    if not kinds:
        msg = f"Looked in {root} for {MTD_EXPECTED}, but found no kind of defect. Unpack the archive anew."
        raise FileNotFoundError(msg)
    if absent:
        logger.warning("%s lacks %s of the published data; going on without.", root, ", ".join(absent))
    plan += [
        PlannedImage(image, "test", folder.name, image.name, image.with_suffix(".png"))
        for folder in kinds
        for image in _mtd_images(folder)
    ]
    return write_layout(plan, out)


def prepare_aebad(raw: str | Path, out: str | Path, domains: list[str] | None = None) -> PreparedData:
    """Put AeBAD-S, single blades of aero-engines (Zhang et al., arXiv 2304.02216), into the layout of MVTec AD.

    File names repeat between the domains ``same``, ``background``, ``illumination`` and ``view``, so the domain goes
    into the name: ``test/groove/view/IMG_1.png`` becomes ``test/groove/view_IMG_1.png``. ``domains`` narrows the test
    images down; training images are always taken.
    """
    root = find_root(raw, _is_aebad, AEBAD_EXPECTED)
    known = sorted({domain.name for folder in list_folders(root / "test") for domain in list_folders(folder)})
    unknown = sorted(set(domains or []) - set(known))
    if unknown:
        msg = f"`domains` has {unknown}, but {root / 'test'} has the domains {known}."
        raise ValueError(msg)
    plan = _aebad_images(root / "train" / "good", "train", None)
    for folder in list_folders(root / "test"):
        plan += _aebad_images(folder, "test", domains or None)
    if all(image.mask is None for image in plan):
        msg = f"Looked in {root / 'test'} for images of defects, <class>/<domain>/*.png, but found none."
        raise FileNotFoundError(msg)
    return write_layout(plan, out)


def _mtd_images(folder: Path) -> list[Path]:
    """Images of a class; the PNG files next to them are masks."""
    images = [path for path in list_pictures(folder / "Imgs") if path.suffix.lower() != ".png"]
    if not images:
        msg = f"{folder / 'Imgs'} holds no .jpg images; unpack the archive anew."
        raise FileNotFoundError(msg)
    return images


def _listed(good: list[Path], train_list: Path) -> set[str]:
    lines = [line for line in map(str.strip, read_text(train_list).splitlines()) if line and not line.startswith("#")]
    stems = {PurePosixPath(line.replace("\\", "/")).stem for line in lines}
    unknown = sorted(stems - {path.stem for path in good})
    if unknown or not stems:
        such = f", such as {unknown[:3]}" if unknown else ""
        msg = (
            f"{train_list} names {len(stems)} images, of which {len(unknown)} are not in {good[0].parent}{such}. "
            f"It should name good images, one a line, like {good[0].name}."
        )
        raise ValueError(msg)
    return stems


def _drawn(good: list[Path], train_ratio: float, seed: int) -> set[str]:
    if not 0 < train_ratio < 1:
        msg = f"`train_ratio` must lie between 0 and 1, got {train_ratio}."
        raise ValueError(msg)
    stems = sorted(path.stem for path in good)
    count = min(max(int(len(stems) * train_ratio), 1), len(stems))
    return {stems[index] for index in np.random.default_rng(seed).permutation(len(stems))[:count]}


def _is_aebad(folder: Path) -> bool:
    """Whether a folder is AeBAD_S: other data has ``train/good`` too, but no domains in it."""
    return (folder / "test").is_dir() and bool(list_folders(folder / "train" / "good"))


def _aebad_images(folder: Path, split: Literal["train", "test"], domains: list[str] | None) -> list[PlannedImage]:
    is_good = folder.name == "good"
    return [
        PlannedImage(image, split, folder.name, f"{domain.name}_{image.name}", None if is_good else _aebad_mask(image))
        for domain in list_folders(folder)
        if domains is None or domain.name in domains
        for image in list_pictures(domain)
    ]


def _aebad_mask(image: Path) -> Path:
    """Where the mask of an image lies: the same path below ``ground_truth``."""
    folder = image.parents[3] / "ground_truth" / image.parent.parent.name / image.parent.name
    names = [image.name, *(f"{image.stem}{end}{suffix}" for end in ("", "_mask") for suffix in sorted(IMAGE_SUFFIXES))]
    return next((folder / name for name in names if (folder / name).is_file()), folder / image.name)
