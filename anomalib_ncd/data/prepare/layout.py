# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The layout that data is put into: ``train/good``, ``test/<class>`` and ``ground_truth/<class>``, as in MVTec AD.

Each file is written under another name and then moved, so an interrupted run goes on when it is started again.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES
from anomalib_ncd.regions.writing import encode_image, whole_file

SPLITS = ("train", "test", "ground_truth")
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class PlannedImage:
    """An image as published, and its split, class folder and file name there; good images have no mask."""

    source: Path
    split: Literal["train", "test"]
    class_name: str
    name: str
    mask: Path | None = None

    @property
    def target(self) -> PurePosixPath:
        """Path of the image in the layout."""
        return PurePosixPath(self.split, self.class_name, self.name)

    @property
    def mask_target(self) -> PurePosixPath:
        """Path of its mask in the layout: the same stem, always a PNG."""
        return PurePosixPath("ground_truth", self.class_name, f"{PurePosixPath(self.name).stem}.png")


@dataclass(frozen=True)
class PreparedData:
    """What a preparation has left: number of images by ``split/class``, of masks by class, kinds of defect in order.

    ``num_written`` counts files that were written now, of which ``empty_masks`` have no pixel.
    """

    root: Path
    num_images: dict[str, int]
    num_masks: dict[str, int]
    defects: list[str]
    num_written: int
    empty_masks: Sequence[Path] = ()


def write_layout(plan: Sequence[PlannedImage], out: str | Path) -> PreparedData:
    """Put images and masks where the plan wants them.

    Images stay as they are, to the byte. Masks become 0 and 255: anomalib takes every pixel above zero as a defect,
    and published masks have soft edges. A pixel counts where it is brighter than half the mask's maximum.

    Raises:
        FileNotFoundError: If the mask of an image is not there.
        ValueError: If two images have one target, the folder holds other images, or files can't be read; all others are
            then in place.
    """
    out = Path(out)
    _refuse_missing_masks(plan)
    _refuse_collisions(plan)
    files = [(image.source, image.target, False) for image in plan]
    files += [(image.mask, image.mask_target, True) for image in plan if image.mask is not None]
    _refuse_strangers({target for _, target, _ in files}, out)
    unreadable, empty, num_written = [], [], 0
    for source, target, is_mask in tqdm(files, desc="Preparing", unit="file"):
        if _is_whole(source, out / target, same_size=not is_mask):
            continue
        try:
            with Image.open(source) as picture:  # Pillow, unlike OpenCV, notices where a file was cut short
                picture.load()
        except (OSError, ValueError, SyntaxError):
            unreadable.append(source)
            continue
        mask = _black_and_white(picture) if is_mask else None
        with whole_file(out / target, sync=False) as unfinished:
            if mask is None:
                shutil.copy2(source, unfinished)
            else:
                unfinished.write_bytes(encode_image(mask, ".png"))
                shutil.copystat(source, unfinished)
        num_written += 1
        if mask is not None and not mask.any():
            empty.append(source)
    if unreadable:
        msg = (
            f"{len(unreadable)} files can't be read: {_examples(unreadable)}. All others are in {out}; get these anew "
            "and give the same command again."
        )
        raise ValueError(msg)
    images = Counter(f"{image.split}/{image.class_name}" for image in plan)
    masks = Counter(image.class_name for image in plan if image.mask is not None)
    defects = sorted({image.class_name for image in plan if image.split == "test"} - {"good"})
    return PreparedData(out, dict(sorted(images.items())), dict(sorted(masks.items())), defects, num_written, empty)


def list_pictures(folder: Path) -> list[Path]:
    """Image files right in a folder, sorted; hidden files, such as those of macOS archives, don't count."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def list_folders(folder: Path) -> list[Path]:
    """Folders right in a folder, sorted, without hidden ones and macOS's own."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def find_root(raw: str | Path, is_root: Callable[[Path], bool], expected: str) -> Path:
    """Find the published folder: the one that was named, or one up to two levels below it.

    ``FileNotFoundError`` or ``ValueError`` if there is none, or several.
    """
    raw = Path(raw)
    if not raw.is_dir():
        msg = f"There is no folder {raw}; unpack the archive and name the folder that holds {expected}."
        raise FileNotFoundError(msg)
    level = [raw]
    for _ in range(3):
        roots = [folder for folder in level if is_root(folder)]
        if len(roots) > 1:
            msg = f"{raw} holds the data more than once: {_examples(roots)}. Name one of these folders."
            raise ValueError(msg)
        if roots:
            return roots[0]
        level = [child for folder in level for child in list_folders(folder)]
    found = sorted(path.name for path in raw.iterdir() if not path.name.startswith("."))
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    msg = f"Looked in {raw} for {expected}, but found {shown or 'nothing'}. Name the folder of the unpacked archive."
    raise FileNotFoundError(msg)


def _black_and_white(published: Image.Image) -> np.ndarray:
    """A mask ``(H, W)`` of 0 and 255, cut at half its brightness."""
    grey = published.mode in {"L", "I", "F"} or published.mode.startswith("I;16")
    plane = np.asarray(published if grey else published.convert("L"))
    return np.where(plane > plane.max() // 2, 255, 0).astype(np.uint8)


def _is_whole(source: Path, target: Path, *, same_size: bool) -> bool:
    """Whether a target was made from the source as it is now: like rsync, by time and size."""
    if not target.is_file():
        return False
    made, published = target.stat(), source.stat()
    return made.st_mtime_ns == published.st_mtime_ns and (made.st_size == published.st_size or not same_size)


def _refuse_missing_masks(plan: Sequence[PlannedImage]) -> None:
    missing = [image for image in plan if image.mask is not None and not image.mask.is_file()]
    if missing:
        named = f"{_examples([image.source for image in missing])}; there is no {missing[0].mask}"
        msg = f"{len(missing)} images of defects have no mask where it belongs: {named}. Unpack anew."
        raise FileNotFoundError(msg)


def _refuse_collisions(plan: Sequence[PlannedImage]) -> None:
    """Two images of one stem in one folder could not be told apart."""
    seen: dict[PurePosixPath, Path] = {}
    for image in plan:
        key = image.target.with_suffix("")
        if key in seen:
            msg = f"{seen[key]} and {image.source} would both become {key}; rename one of them."
            raise ValueError(msg)
        seen[key] = image.source


def _refuse_strangers(wanted: set[PurePosixPath], out: Path) -> None:
    """Images of another split or data set in the target would be mixed with these."""
    strangers = [
        path
        for split in SPLITS
        for path in sorted((out / split).rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and PurePosixPath(path.relative_to(out).as_posix()) not in wanted
    ]
    if strangers:
        msg = (
            f"{out} holds {len(strangers)} images that don't belong to what was asked for, such as {strangers[0]}: "
            "they are of other data or another split. Choose another folder or delete it."
        )
        raise ValueError(msg)


def _examples(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - NUM_EXAMPLES} more" if len(paths) > NUM_EXAMPLES else ""
    return ", ".join(str(path) for path in paths[:NUM_EXAMPLES]) + more
