# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""AeBAD-S, single blades of aero-engines (Zhang et al., Computers in Industry 2023, https://arxiv.org/abs/2304.02216)."""

from pathlib import Path
from typing import Literal

from anomalib_ncd.data.prepare.layout import (
    PlannedImage,
    PreparedData,
    find_root,
    list_folders,
    list_pictures,
    refuse_missing_masks,
    write_layout,
)
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES

EXPECTED = "train/good/<domain>, test/<class>/<domain> and ground_truth/<class>/<domain> of AeBAD_S"


def prepare_aebad(raw: str | Path, out: str | Path, domains: list[str] | None = None) -> PreparedData:
    """Put AeBAD-S, as published, into the layout of MVTec AD.

    File names repeat between the domains ``same``, ``background``, ``illumination`` and ``view``, so the domain goes
    into the name: ``test/groove/view/IMG_1.png`` becomes ``test/groove/view_IMG_1.png``. ``domains`` narrows the test
    images down; training images are always taken.
    """
    root = find_root(raw, _is_root, EXPECTED)
    plan = _images(root / "train" / "good", "train", None)
    known = sorted({domain.name for folder in list_folders(root / "test") for domain in list_folders(folder)})
    unknown = sorted(set(domains or []) - set(known))
    if unknown:
        msg = f"`domains` has {unknown}, but {root / 'test'} has the domains {known}."
        raise ValueError(msg)
    for folder in list_folders(root / "test"):
        plan += _images(folder, "test", domains or None)
    if not any(image.split == "test" and image.class_name != "good" for image in plan):
        msg = f"Looked in {root / 'test'} for images of defects, <class>/<domain>/*.png, but found none."
        raise FileNotFoundError(msg)
    missing = [image.source for image in plan if image.mask is not None and not image.mask.is_file()]
    refuse_missing_masks(missing, f"of the same class, domain and name in {root / 'ground_truth'}")
    return write_layout(plan, out)


def _is_root(folder: Path) -> bool:
    """Whether a folder is AeBAD_S: other data has ``train/good`` too, but no domains in it."""
    return (folder / "test").is_dir() and bool(list_folders(folder / "train" / "good"))


def _images(folder: Path, split: Literal["train", "test"], domains: list[str] | None) -> list[PlannedImage]:
    """Images of a class with their masks."""
    return [
        PlannedImage(
            image, split, folder.name, f"{domain.name}_{image.name}", None if folder.name == "good" else _mask_of(image)
        )
        for domain in list_folders(folder)
        if domains is None or domain.name in domains
        for image in list_pictures(domain)
    ]


def _mask_of(image: Path) -> Path:
    """Where the mask of an image lies: the same path below ``ground_truth``."""
    class_name, domain, root = image.parent.parent.name, image.parent.name, image.parents[3]
    folder = root / "ground_truth" / class_name / domain
    candidates = [folder / image.name]
    candidates += [folder / f"{image.stem}{end}{suffix}" for end in ("", "_mask") for suffix in sorted(IMAGE_SUFFIXES)]
    return next((mask for mask in candidates if mask.is_file()), candidates[0])
