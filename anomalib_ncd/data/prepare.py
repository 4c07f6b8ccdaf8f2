# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Published archives, put into the layout of MVTec AD that ``discover`` and anomalib's datamodules read.

That is ``train/good``, ``test/<class>`` and ``ground_truth/<class>``. Images stay as they are, to the byte.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, read_text
from anomalib_ncd.regions.writing import whole_file, write_image

logger = logging.getLogger(__name__)

MTD_GOOD = "MT_Free"
MTD_DEFECTS = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven")
MTD_EXPECTED = "MT_Free/Imgs and MT_Blowhole/Imgs, MT_Break/Imgs and so on"
AEBAD_EXPECTED = "train/good/<domain>, test/<class>/<domain> and ground_truth/<class>/<domain> of AeBAD_S"
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class PlannedImage:
    """An image as published, and its split, class folder and file name in the layout; good images have no mask."""

    source: Path
    split: Literal["train", "test"]
    class_name: str
    name: str
    mask: Path | None = None

    @property
    def target(self) -> PurePosixPath:
        """Path of the image in the layout."""
        return PurePosixPath(self.split, self.class_name, self.name)


@dataclass(frozen=True)
class PreparedData:
    """What a preparation has left: number of images by ``split/class``, of masks by class, kinds of defect in order."""

    root: Path
    num_images: dict[str, int]
    num_masks: dict[str, int]
    defects: list[str]
    empty_masks: Sequence[Path] = ()  # published masks without a pixel


def prepare_mtd(
    raw: str | Path, out: str | Path, train_list: str | Path | None = None, train_ratio: float = 0.8, seed: int = 0
) -> PreparedData:
    """Put Magnetic Tile Defect (Huang, Qiu and Yuan, The Visual Computer 2020) into the layout of MVTec AD.

    Published are folders ``MT_<kind>/Imgs`` with images ``.jpg`` and masks ``.png`` of the same stem. The good tiles,
    ``MT_Free``, are parted into ``train/good`` and ``test/good``; their black masks are left out.

    Args:
        raw: Unpacked archive.
        out: Target folder; for errors see :func:`write_layout`.
        train_list: Text file with the good images to train on, one name a line, with or without folder and suffix;
            DifferNet's list is the common one. By default a share of them is drawn at random.
        train_ratio: That share.
        seed: Seed of that draw.
    """
    root = find_root(raw, lambda folder: (folder / MTD_GOOD / "Imgs").is_dir(), MTD_EXPECTED)
    good = _mtd_images(root / MTD_GOOD)
    train = _listed(good, Path(train_list)) if train_list is not None else _drawn(good, train_ratio, seed)
    plan = [PlannedImage(path, "train" if path.stem in train else "test", "good", path.name) for path in good]
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
    # Other data has `train/good`, too, but no domains in it.
    root = find_root(raw, lambda folder: bool(list_folders(folder / "train" / "good")), AEBAD_EXPECTED)
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


def write_layout(plan: Sequence[PlannedImage], out: str | Path) -> PreparedData:
    """Put images and masks where the plan wants them, into a folder that is new or empty.

    Masks become PNG files of 0 and 255: anomalib takes every pixel above zero as a defect, and published masks have
    soft edges. A pixel counts where it is brighter than half the mask's maximum. ``FileExistsError`` if there is
    anything in the folder; ``FileNotFoundError`` if the mask of an image is not there; ``ValueError`` if two images
    have one target, or a file can't be read.
    """
    out, empty = Path(out), list[Path]()
    missing = [image for image in plan if image.mask is not None and not image.mask.is_file()]
    if missing:
        named = f"{_examples([image.source for image in missing])}; there is no {missing[0].mask}"
        msg = f"{len(missing)} images of defects have no mask where it belongs: {named}. Unpack anew."
        raise FileNotFoundError(msg)
    seen: dict[PurePosixPath, Path] = {}
    for image in plan:
        if seen.setdefault(image.target.with_suffix(""), image.source) is not image.source:
            key = image.target.with_suffix("")
            msg = f"{seen[key]} and {image.source} would both become {key}; rename one of them."
            raise ValueError(msg)
    if out.is_dir() and any(out.iterdir()):
        msg = f"{out} holds files already, which these would be mixed with; choose another folder or delete it."
        raise FileExistsError(msg)
    for image in tqdm(plan, desc="Preparing", unit="image"):
        _read(image.source)
        with whole_file(out / image.target, sync=False) as unfinished:
            shutil.copy2(image.source, unfinished)
        if image.mask is not None:
            plane = _read(image.mask)
            mask = plane > plane.max() // 2
            target = PurePosixPath("ground_truth", image.class_name, image.name).with_suffix(".png")
            write_image(out / target, mask, sync=False)
            empty += [] if mask.any() else [image.mask]
    images = Counter(f"{image.split}/{image.class_name}" for image in plan)
    masks = Counter(image.class_name for image in plan if image.mask is not None)
    defects = sorted({image.class_name for image in plan if image.split == "test"} - {"good"})
    return PreparedData(out, dict(sorted(images.items())), dict(sorted(masks.items())), defects, empty)


def list_pictures(folder: Path) -> list[Path]:
    """Image files right in a folder, sorted; hidden files, such as those of macOS archives, don't count."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def list_folders(folder: Path) -> list[Path]:
    """Folders right in a folder, sorted, without hidden ones and macOS's own; none where there is no such folder."""
    found = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in found if path.is_dir() and not path.name.startswith((".", "__")))


def find_root(raw: str | Path, is_root: Callable[[Path], bool], expected: str) -> Path:
    """Find the published folder: the one that was named, or one up to two levels below it.

    ``FileNotFoundError`` or ``ValueError`` if there is none, or several.
    """
    raw = Path(raw)
    if not raw.is_dir():
        msg = f"There is no folder {raw}; unpack the archive and name the folder that holds {expected}."
        raise FileNotFoundError(msg)
    level, roots = [raw], list[Path]()
    for _ in range(3):
        roots = roots or [folder for folder in level if is_root(folder)]
        level = [child for folder in level for child in list_folders(folder)]
    if len(roots) > 1:
        msg = f"{raw} holds the data more than once: {_examples(roots)}. Name one of these folders."
        raise ValueError(msg)
    if not roots:
        found = sorted(path.name for path in raw.iterdir() if not path.name.startswith("."))
        shown = ", ".join(found[:8]) or "nothing"
        msg = f"Looked in {raw} for {expected}, but found {shown}. Name the folder of the unpacked archive."
        raise FileNotFoundError(msg)
    return roots[0]


def _read(file: Path) -> np.ndarray:
    """Grey values of a picture; Pillow, unlike OpenCV, notices where a file was cut short."""
    try:
        with Image.open(file) as picture:
            is_grey = picture.mode in {"L", "I", "F"} or picture.mode.startswith("I;16")
            return np.asarray(picture if is_grey else picture.convert("L"))
    except (OSError, ValueError, SyntaxError) as error:
        msg = f"{file} can't be read ({error}); get it anew, and give the same command with an empty folder."
        raise ValueError(msg) from error


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


def _examples(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - NUM_EXAMPLES} more" if len(paths) > NUM_EXAMPLES else ""
    return ", ".join(str(path) for path in paths[:NUM_EXAMPLES]) + more
