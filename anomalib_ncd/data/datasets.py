# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Datasets over regions: augmented views for training, images with their regions for prediction, and normal regions."""

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from anomalib_ncd.data.batches import NcdBatch, RegionViewBatch
from anomalib_ncd.data.images import LabelledImage, files_of, read_base_region
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.crops import crop_pixels
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import ImageFile, digest_of_images, stamp_of
from anomalib_ncd.regions.views import CROP_RATIO, eval_views, resize_short_side, whole_view

JITTER_RANGES = ((0.6, 1.4), (0.6, 1.4), (0.6, 1.8))  # of brightness, contrast and saturation
BLUR_KERNELS = (9, 13, 17, 21, 25, 29, 33)
SHARPEN_KERNEL = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13

View = tuple[torch.Tensor, torch.Tensor]
Range = tuple[float, float]

NUM_VIEWS = 2  # of each region in a batch, as the losses compare them
MAX_NORMAL_REGIONS = 300  # so that the work doesn't grow with the number of normal images


class TrainView:
    """A random view for training (paper, implementation details).

    Short side to 256, random 224 crop, flips, colour jitter, a random number of quarter turns, sharpness, Gaussian
    blur and posterisation. The mask moves with the image. Random numbers come from torch's global generator, so that
    ``seed_everything`` and Lightning's worker seeding apply.
    """

    def __init__(self, image_size: int = 224) -> None:
        self.image_size = image_size

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> View:
        """Make a random view; shapes and types as of :func:`~anomalib_ncd.regions.views.eval_view`."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        resized = int(self.image_size / CROP_RATIO)
        image, soft_mask = resize_short_side(image, mask, resized)
        left, top = (int(rng.random() * (resized - self.image_size)) for _ in range(2))
        window = np.s_[top : top + self.image_size, left : left + self.image_size]
        image, soft_mask = image[window], soft_mask[window]
        for axis in (1, 0):
            if rng.random() < 0.5:
                image, soft_mask = np.flip(image, axis), np.flip(soft_mask, axis)
        image = jitter_colour(np.ascontiguousarray(image), rng)
        turns = int(rng.integers(4))
        image, soft_mask = np.rot90(image, turns), np.rot90(soft_mask, turns)
        image = adjust_sharpness(np.ascontiguousarray(image), 0.2 + 1.8 * rng.random())
        image = blur(image, int(rng.choice(BLUR_KERNELS)), rng.uniform(0.1, 2.0))
        return to_view(posterize(image, int(rng.integers(5, 9))), soft_mask)


def jitter_colour(image: np.ndarray, rng: np.random.Generator, ranges: Sequence[Range] = JITTER_RANGES) -> np.ndarray:
    """Change brightness, contrast and saturation by random factors out of their ranges, in random order."""
    steps = (adjust_brightness, adjust_contrast, adjust_saturation)
    for index in rng.permutation(len(steps)):
        image = steps[index](image, rng.uniform(*ranges[index]))
    return image


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply all values of a ``uint8`` image."""
    return cv2.convertScaleAbs(image, alpha=factor)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Move all values of a ``uint8`` image away from (or towards) the mean grey value."""
    mean = int(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean() + 0.5)
    levels = np.arange(256, dtype=np.float32) * factor + mean * (1 - factor)
    return cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Move the colours of a ``uint8`` image away from (or towards) grey."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend a ``uint8`` image with its smoothed self: below 1 softer, above 1 sharper; the border row stays."""
    smooth = image.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, SHARPEN_KERNEL)[1:-1, 1:-1]
    return cv2.addWeighted(image, factor, smooth, 1 - factor, 0)


def blur(image: np.ndarray, kernel_size: int, sigma: float) -> np.ndarray:
    """Gaussian blur; the kernel is cut where its weights no longer move an 8-bit value."""
    reach = 2 * int(np.ceil(4 * sigma)) + 1
    size = min(kernel_size, reach)
    return cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper ``bits`` bits of each value."""
    return image & np.uint8(256 - 2 ** (8 - bits))


def to_view(image: np.ndarray, soft_mask: np.ndarray) -> View:
    """Channels-first tensors of an image and its soft mask."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return pixels, torch.from_numpy(np.ascontiguousarray(soft_mask[None], dtype=np.float32))


class NormalRegions:
    """Regions cut out of normal images, with the shapes of the novel regions.

    Each takes the mask and the relative size of a novel region, drawn at random, and lies anywhere in a normal image,
    or leaves it as that one leaves its own. So only what it shows tells the label. There are ``num_regions``, masks
    serving several times if there are fewer; by default as many as novel regions, 300 at most.
    """

    def __init__(
        self, images: Sequence[ImageFile], table: RegionTable, seed: int = 0, num_regions: int | None = None
    ) -> None:
        self.images, self.table, self.seed = list(images), table, seed
        count = min(len(table), MAX_NORMAL_REGIONS) if num_regions is None else num_regions
        order = np.random.default_rng([seed, len(table)]).permutation(len(table))
        self._masks = np.resize(order, count if self.images and len(table) else 0)

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels ``(h, w, 3)`` uint8 and mask ``(h, w)`` bool, cut out of the file at each call."""
        row = int(self._masks[number])
        _, mask = self.table.load(row)
        index, rng = self._draw(number)
        image = read_image(self.images[index].path, self.table.settings.bit_depth)
        left, top, right, bottom = self.table.rows[row].box_xyxy
        height, width = self.table.sizes_hw[self.table.image_of[row]]
        first_row, num_rows = _placed(top, bottom, height, image.shape[0], rng)
        first, num_columns = _placed(left, right, width, image.shape[1], rng)
        box = np.array([first, first_row, first + num_columns, first_row + num_rows])
        mask_of_cut = cv2.resize(mask.view(np.uint8), (num_columns, num_rows), interpolation=cv2.INTER_NEAREST) > 0
        cut = crop_pixels(image, box, mask_of_cut, self.table.settings.method)
        return cv2.resize(cut, mask.shape[::-1], interpolation=cv2.INTER_LINEAR), mask

    def image_index(self, number: int) -> int:
        """The image that a region lies in."""
        return self._draw(number)[0]

    def identity(self) -> str:
        """All that the regions depend on besides the table."""
        return f"{self.seed} {len(self)} {digest_of_images(self.images)}"

    def _draw(self, number: int) -> tuple[int, np.random.Generator]:
        """Image of a region, and the generator that draws its place; both depend on the seed and its number alone."""
        rng = np.random.default_rng([self.seed, number])
        return int(rng.integers(len(self.images))), rng


def _placed(start: float, end: float, side: int, whole: int, rng: np.random.Generator) -> tuple[int, int]:
    """First pixel and length, 2 at least, of a stretch of a side on another one: anywhere, in place if it leaves."""
    length = max(round((end - start) / side * whole), 2)
    return round(start / side * whole) if start < 0 or end > side else int(rng.integers(whole - length + 1)), length


class TrainRegions(Dataset):
    """Base, normal and novel regions, in this order, each item with two random views.

    Normal regions are labelled as the first novel class, whose label follows those of the base classes. Novel regions
    carry label 0, which says nothing: their classes are to be discovered.
    """

    def __init__(
        self,
        table: RegionTable,
        base: Sequence[LabelledImage] = (),
        image_size: int = 224,
        normal: NormalRegions | None = None,
    ) -> None:
        self.table = table
        self.view = TrainView(image_size)
        normal_crops = []
        if normal is not None:
            numbers = tqdm(range(len(normal)), desc="Cutting normal regions", unit="region")
            normal_crops = [normal[number] for number in numbers]
        self._labelled_crops = [read_base_region(labelled) for labelled in base] + normal_crops
        self.num_base, num_novel = len(base), len(table)
        names = sorted({labelled.class_name for labelled in base})
        labels = [names.index(labelled.class_name) for labelled in base] + [len(names)] * len(normal_crops)
        self.is_base = torch.tensor([True] * len(labels) + [False] * num_novel)  # labelled ones: base and normal
        self.labels = torch.tensor(labels + [0] * num_novel)
        digest = hashlib.sha256(f"{image_size}".encode())
        for file in files_of(base):
            digest.update(repr((str(file), stamp_of(file))).encode())
        if normal is not None:
            digest.update(normal.identity().encode())
        self._labelled_digest = digest.hexdigest()
        self.scores = torch.tensor([1.0] * len(labels) + [row.score for row in table.rows], dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.is_base)

    def fingerprint(self) -> str:
        """Digest of what the views are made from: novel regions, labelled images and the size of a view."""
        return hashlib.sha256(f"{self.table.fingerprint} {self._labelled_digest}".encode()).hexdigest()

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels ``(h, w, 3)`` uint8 and mask ``(h, w)`` bool of a region."""
        num_labelled = len(self._labelled_crops)
        return self._labelled_crops[index] if index < num_labelled else self.table.load(index - num_labelled)

    def without_views(self, index: int) -> RegionViewBatch:
        """An item without views."""
        return RegionViewBatch(
            region_index=torch.tensor([index]),
            label=self.labels[index : index + 1],
            is_base=self.is_base[index : index + 1],
            score=self.scores[index : index + 1],
        )

    def __getitem__(self, index: int) -> RegionViewBatch:
        return self.with_views(index, NUM_VIEWS)

    def with_views(self, index: int, num_views: int) -> RegionViewBatch:
        """An item with any number of random views."""
        image, mask = self.load(index)
        views = [self.view(image, mask) for _ in range(num_views)]
        item = self.without_views(index)
        item.image = torch.stack([view for view, _ in views])[:, None]
        item.mask = torch.stack([view_mask for _, view_mask in views])[:, None]
        return item


class EvalImages(Dataset):
    """Images, each item with the fixed views of all its regions, of which there may be none.

    ``class_ids`` are for evaluation, -1 where unknown; with ``whole_images`` there are views of those as well.
    """

    def __init__(
        self,
        table: RegionTable,
        class_ids: Sequence[int] | None = None,
        image_size: int = 224,
        whole_images: bool = False,
    ) -> None:
        self.table, self.whole_images = table, whole_images
        self.class_ids, self.image_size = class_ids, image_size

    def __len__(self) -> int:
        return len(self.table.images)

    def __getitem__(self, index: int) -> NcdBatch:
        path, rows = self.table.images[index].path, self.table.rows_of_image[index]
        views, masks = eval_views([self.table.load(row) for row in rows], self.image_size)
        regions = [self.table.rows[row] for row in rows]
        item = NcdBatch(
            image_path=[str(path)],
            image_size=torch.tensor([self.table.sizes_hw[index]]),
            image=torch.from_numpy(views),
            region_mask=torch.from_numpy(masks),
            region_image_index=torch.zeros(len(rows), dtype=torch.long),
            region_box_xyxy=torch.tensor([region.box_xyxy for region in regions], dtype=torch.float32).reshape(-1, 4),
            region_score=torch.tensor([region.score for region in regions], dtype=torch.float32),
            region_area=torch.tensor([region.area for region in regions], dtype=torch.long),
        )
        if self.whole_images:
            pixels = read_image(path, self.table.settings.bit_depth)
            item.whole_image = torch.from_numpy(whole_view(pixels, self.image_size))[None]
        if self.class_ids is not None:
            item.class_id = torch.tensor([self.class_ids[index]])
            item.region_class_id = item.class_id.repeat(len(rows))
        return item


class BalancedSampler(Sampler[int]):
    """Draws base and novel regions half and half, with replacement; as many an epoch as there are.

    With several processes each draws its share of one common sequence, which the seed and the epoch decide.
    """

    def __init__(self, is_base: torch.Tensor, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        num_base = int(is_base.sum())
        num_novel = len(is_base) - num_base
        self.weights = torch.ones(len(is_base), dtype=torch.double)
        if num_base and num_novel:
            self.weights[~is_base] = num_base / num_novel
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's sequence; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights) // self.world_size or 1

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        num_draws = len(self) * self.world_size
        drawn = torch.multinomial(self.weights, num_draws, replacement=True, generator=generator)
        return iter(drawn[self.rank :: self.world_size].tolist())
