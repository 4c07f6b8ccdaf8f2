# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Base classes without a labelled data set: kinds of defect painted onto the user's own normal images."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.crops import crop, crop_pixels, region_boxes
from anomalib_ncd.regions.reading.images import MIN_IMAGE_SIDE_PX, read_image
from anomalib_ncd.regions.reading.listing import ImageFile, digest_of_images
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.regions.views import CROP_RATIO, resize_short_side
from anomalib_ncd.regions.writing import write_file, write_image
from anomalib_ncd.synthetic.painted_defects import paint_on_surface
from anomalib_ncd.synthetic.plate_defects import DEFECT_KINDS

logger = logging.getLogger(__name__)

MIN_NORMAL_IMAGES = 10  # taken for normal where none are given as such
KINDS = tuple(sorted(DEFECT_KINDS))  # base classes in the order of their ids
NUM_PER_CLASS = 20  # regions
_PAINTER_VERSION = 2  # raise it when the same settings would give other bytes
_MIN_SIDE_PX = 64
_SETTINGS_FILE = "synthetic.json"


def least_anomalous(table: RegionTable) -> list[ImageFile]:
    """Take the quarter of the images with the lowest highest scores for normal, but at least ten, or all of fewer."""
    scores = np.zeros(len(table.images))
    np.maximum.at(scores, np.array(table.image_of, dtype=int), [region.score for region in table.rows])
    count = max(MIN_NORMAL_IMAGES, len(scores) // 4)
    chosen = sorted(np.argsort(scores, kind="stable")[:count].tolist())
    text = "No normal images were given; base classes are painted on %d images with the lowest scores."
    logger.info(text, len(chosen))
    return [table.images[index] for index in chosen]


def write_synthetic_base(
    folder: str | Path, images: Sequence[ImageFile], regions: RegionSettings, image_size: int = 224
) -> Path:
    """Paint base classes into a base folder, ``images/<class>`` and ``masks/<class>``, and return it.

    A region depends on its number and the way regions are cut alone; those that an interrupted run has finished from
    the same images are kept. Regions are cut as novel ones are, and are no larger than a view of ``image_size`` shows.
    ``FileExistsError`` if the folder holds something else.
    """
    folder = Path(folder)
    settings = {
        "painter_version": _PAINTER_VERSION,
        "num_per_class": NUM_PER_CLASS,
        "kinds": KINDS,
        "regions": regions.to_dict(),
        "image_size": image_size,
        "normal_images": digest_of_images(images),
    }
    _claim_folder(folder, json.dumps(settings, indent=2))
    order = np.random.default_rng([0, len(DEFECT_KINDS)]).permutation(len(images))
    todo = [(name, number) for number in range(NUM_PER_CLASS) for name in KINDS]
    todo = [(name, number) for name, number in todo if not (folder / f"images/{name}/{number:03d}.png").is_file()]
    for name, number in tqdm(todo, desc="Painting base classes", unit="region", disable=not todo):
        image = images[order[(number * len(KINDS) + KINDS.index(name)) % len(images)]]
        rng = np.random.default_rng([0, DEFECT_KINDS.index(name), number])
        pixels, mask = _paint_region(read_image(image.path, regions.bit_depth), name, rng, regions, image_size)
        # The image comes last: where there is one, the region is whole.
        write_image(folder / f"masks/{name}/{number:03d}.png", mask, sync=False)
        write_image(folder / f"images/{name}/{number:03d}.png", pixels, sync=False)
    return folder


def _paint_region(
    image: np.ndarray, kind: str, rng: np.random.Generator, regions: RegionSettings, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Paint one defect and cut its region out: pixels ``(h, w, 3)`` uint8 and mask ``(h, w)`` bool."""
    view_side = int(image_size / CROP_RATIO)
    painted, mask = paint_on_surface(_workable(image, view_side / max(2 * regions.min_size_ratio, 0.05)), kind, rng)
    box = region_boxes(mask, 0, regions)[0]
    mask = crop(mask, box)
    pixels = crop_pixels(painted, box, mask, regions.method)
    if min(mask.shape) > view_side:
        pixels, soft_mask = resize_short_side(pixels, mask, view_side)
        mask = soft_mask >= 0.5 if (soft_mask >= 0.5).any() else soft_mask > 0
    # A folder of base classes holds no image that is too small to be read; whole pixels keep the mask exact.
    times = -(-MIN_IMAGE_SIDE_PX // min(mask.shape))
    return pixels.repeat(times, 0).repeat(times, 1), mask.repeat(times, 0).repeat(times, 1)


def _workable(image: np.ndarray, longest_px: float) -> np.ndarray:
    """Enlarge images too small to paint on; shrink those whose smallest regions are larger than a view."""
    factor = min(1.0, longest_px / max(image.shape[:2]))
    factor = max(factor, _MIN_SIDE_PX / min(image.shape[:2]))
    if factor == 1.0:
        return image
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _claim_folder(folder: Path, wanted: str) -> None:
    """Take over what was painted with the same settings; throw away what was painted with others."""
    file = folder / _SETTINGS_FILE
    if file.is_file() and file.read_text(encoding="utf-8") == wanted:
        return
    if not file.is_file() and folder.is_dir() and any(folder.iterdir()):
        msg = f"{folder} holds something else than painted base classes; move it, or choose another `work_dir`."
        raise FileExistsError(msg)
    for part in ("images", "masks"):
        shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(file, wanted)
