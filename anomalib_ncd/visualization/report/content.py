# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What stands in the report, as plain data that the template only has to lay out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anomalib_ncd.regions.classes.prediction import first_slots
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.visualization.drawing import draw_regions, stretch_contrast
from anomalib_ncd.visualization.gallery import OUTLINE_RGB, region_tile
from anomalib_ncd.visualization.report.certainty import region_certainty
from anomalib_ncd.visualization.report.crops import jpeg_data_uri

TYPICAL_REGIONS = 8
IMAGES_PER_CLASS = 4
DOUBTFUL_REGIONS = 24
SEVERAL_IMAGES = 12
EMPTY_IMAGES = 24
PEAK_SIDE = 0.2  # of the box around a peak, as a share of the longer side of the image
SUSPICIOUS_REGIONS = 12
TILE_PX = 160
IMAGE_PX = 320
TILE_MARGIN = 150  # a grey for light and dark pages

LoadRegion = Callable[[int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Picture:
    """An image of the page: its data URI, the text that stands for it, a caption, and the region or image."""

    src: str
    alt: str
    lines: list[str] = field(default_factory=list)
    region: int | None = None
    image: int | None = None


@dataclass(frozen=True)
class ClassCard:
    """A discovered class."""

    name: str
    slots: list[int]  # the class goes by the first
    color: int  # -1 for normal
    num_regions: int
    num_images: int  # those that have such regions, or were said to be of it as a whole
    certainty: str  # mean of its regions; empty without any
    labels: str  # what the labels say of its images; empty without labels
    typical: list[Picture]
    images: list[Picture]  # those that the typical regions came from


class ReportContent:
    """Everything that the page shows but the map; arguments as of :func:`write_report`."""

    def __init__(
        self,
        results: RunResults,
        class_names: Sequence[str],
        images: Sequence[ImageResult],
        load: LoadRegion,
        metrics: dict[str, Any] | None,
        peaks_xy: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        self.results, self.batch = results, results.batch
        self.class_names, self.load, self.peaks_xy = list(class_names), load, peaks_xy
        first = first_slots(class_names)
        self.normal_slot = None if results.normal_slot is None else first[results.normal_slot]
        self.certainty = region_certainty(results.batch, class_names)
        self.image_of = results.batch.region_image_index.numpy()
        self.has_mask = results.batch.region_area.numpy() > 0
        unknown = results.batch.region_unknown  # runs without rejection have none
        self.is_unknown = np.zeros(len(self.image_of), bool) if unknown is None else unknown.numpy().astype(bool)

        said = [] if results.batch.said_class_id is None else results.batch.said_class_id.tolist()
        # Name of the class that an image as a whole was said to be of
        self.said = {image: self.class_names[slot] for image, slot in enumerate(said) if slot >= 0}

        # The classes but normal, regions whose second class is closest behind, images of more than one class, images in
        # which nothing was found, and the regions unlike all of the run that have the highest scores.
        slots = sorted(set(first) - {self.normal_slot})
        self.cards = [self._card(slot, color) for color, slot in enumerate(slots)]
        self.normal = None if self.normal_slot is None else self._card(self.normal_slot, -1)
        doubtful = np.flatnonzero(self.certainty.is_doubtful)
        least_sure = doubtful[np.argsort(self.certainty.lead[doubtful], kind="stable")].tolist()
        self.doubtful = [self.picture(region, with_runner_up=True) for region in least_sure[:DOUBTFUL_REGIONS]]
        self.num_doubtful = len(doubtful)
        sets = [image.classes for image in images]
        several = [image for image, classes in enumerate(sets) if len(classes) > 1]
        self.several = self._images(several, self._boxes, SEVERAL_IMAGES, lambda image: [" and ".join(sets[image])])
        self.num_several = len(several)
        empty = np.setdiff1d(np.arange(len(sets)), self.image_of[self.has_mask]).tolist()
        self.empty = self._images(empty, self._peak_box, EMPTY_IMAGES)
        self.num_empty = len(empty)
        unlike = self._most_suspicious(np.flatnonzero(self.is_unknown))
        self.unknown = [self.picture(region, with_score=True) for region in unlike]
        self.num_unknown = int(self.is_unknown.sum())
        self.sentence, self.figures = self._sentence(), self._figures(metrics)

    def picture(self, region: int, *, with_runner_up: bool = False, with_score: bool = False) -> Picture:
        """A region as a tile."""
        key = self.results.image_keys[self.image_of[region]]
        name, value = self.class_names[self.certainty.slot[region]], self.certainty.value[region]
        lines = [key, f"{name} · {value:.0%}"]
        if self.is_unknown[region]:
            lines.append("unknown")
        runner_up = int(self.certainty.runner_up[region])
        if with_runner_up and runner_up >= 0:
            lines.append(f"or {self.class_names[runner_up]}")
        if with_score:
            lines.append(f"anomaly score {float(self.batch.region_score[region]):.2f}")
        tile = region_tile(*self.load(region), TILE_PX, TILE_MARGIN)
        return Picture(jpeg_data_uri(tile), f"Region of {key}, class {name}", lines, int(region))

    def _card(self, slot: int, color: int) -> ClassCard:
        is_normal = slot == self.normal_slot
        members = np.flatnonzero((self.certainty.slot == slot) & self.has_mask)  # not images in which nothing was found
        shown = self._most_suspicious(members) if is_normal else self._most_typical(members)
        came_from = dict.fromkeys(int(self.image_of[region]) for region in shown)
        said = (image for image, name in self.said.items() if name == self.class_names[slot])
        slots = [index for index, first in enumerate(first_slots(self.class_names)) if first == slot]
        return ClassCard(
            name=self.class_names[slot],
            slots=slots,
            color=color,
            num_regions=len(members),
            num_images=len({*self.image_of[members].tolist(), *said}),
            certainty=f"{self.certainty.value[members].mean():.0%}" if len(members) else "",
            labels=self._labels_of(slots),
            typical=[self.picture(region, with_score=is_normal) for region in shown],
            images=[] if is_normal else self._images(came_from, lambda i: self._boxes(i, slot), IMAGES_PER_CLASS),
        )

    def _most_typical(self, members: np.ndarray) -> list[int]:
        """Regions nearest to the mean of their class, those of other images first."""
        order = members[np.lexsort((-self.certainty.value[members], self.certainty.distance[members]))].tolist()
        _, first_of_image = np.unique(self.image_of[order], return_index=True)
        first = [order[index] for index in sorted(first_of_image)]
        taken = set(first)
        return [*first, *(region for region in order if region not in taken)][:TYPICAL_REGIONS]

    def _most_suspicious(self, members: np.ndarray) -> list[int]:
        scores = self.batch.region_score.numpy()[members]
        return members[np.argsort(-scores, kind="stable")][:SUSPICIOUS_REGIONS].tolist()

    def _images(
        self,
        images: Iterable[int],
        boxes_of: Callable[[int], list[list[float]]],
        most: int,
        caption: Callable[[int], list[str]] = lambda _: [],
    ) -> list[Picture]:
        """The first images that can be read, with outlined boxes."""
        pictures: list[Picture] = []
        for image in images:
            try:
                pixels = read_image(self.batch.image_path[image], self.results.bit_depth)
            except (OSError, ValueError):  # moved since the run; the crops are still there
                continue
            boxes = boxes_of(image)
            outlines = boxes, None, [OUTLINE_RGB] * len(boxes)
            drawn = draw_regions(stretch_contrast(pixels), *outlines, side_range_px=(1, IMAGE_PX))
            key = self.results.image_keys[image]
            alt = f"Image {key} with {len(boxes)} outlined region{'s' * (len(boxes) != 1)}"
            pictures.append(Picture(jpeg_data_uri(drawn), alt, [key, *caption(image)], image=image))
            if len(pictures) == most:
                break
        return pictures

    def _boxes(self, image: int, slot: int | None = None) -> list[list[float]]:
        """Boxes of the regions of an image: all, or those of a class."""
        members = np.flatnonzero((self.image_of == image) & ((self.certainty.slot == slot) | (slot is None)))
        return self.batch.region_box_xyxy.numpy()[members].tolist()

    def _peak_box(self, image: int) -> list[list[float]]:
        """A box around the peak of an image's map, inside the image; none where the peak is not known."""
        if self.peaks_xy is None:
            return []
        size_hw = self.batch.image_size[image].tolist()
        side = PEAK_SIDE * max(size_hw)
        left, top = (
            min(max(place - side / 2, 0), max(length - side, 0))
            for place, length in zip(self.peaks_xy[image], size_hw[::-1], strict=True)
        )
        return [[left, top, left + side, top + side]]

    def _labels_of(self, slots: Sequence[int]) -> str:
        """The commonest label among the images of a class."""
        if self.batch.class_id is None or self.batch.pred_class_id is None:
            return ""
        in_class = np.isin(self.batch.pred_class_id.numpy(), slots)
        labels = [label for label in self.batch.class_id.numpy()[in_class].tolist() if label >= 0]
        if not labels:
            return ""
        label, count = Counter(labels).most_common(1)[0]
        return f"{count} of {len(labels)} labelled images are {self.results.label_names[label]}"

    def _sentence(self) -> str:
        found = [card for card in self.cards if card.num_regions]
        num_images = len(self.batch.image_path)
        if not found:
            return f"No defects were found in {counted(num_images, 'image')}."
        num_regions = sum(card.num_regions for card in found)
        sentence = (
            f"{counted(num_regions, 'region')} in {counted(num_images, 'image')} "
            f"{'fall' if num_regions != 1 else 'falls'} into {counted(len(found), 'class', 'classes')}"
        )
        if self.normal is not None and self.normal.num_regions:
            sentence += f"; {counted(self.normal.num_regions, 'more looks', 'more look')} normal"
        if self.num_doubtful:
            sentence += f"; {counted(self.num_doubtful, 'region is', 'regions are')} worth a second look"
        if self.num_empty:
            sentence += f"; nothing was found in {counted(self.num_empty, 'image')}"
        return f"{sentence}."

    def _figures(self, metrics: dict[str, Any] | None) -> list[tuple[str, str]]:
        figures = [
            ("images", f"{len(self.batch.image_path):,}"),
            ("marked regions", f"{int(self.has_mask.sum()):,}"),
            ("classes", str(sum(card.num_regions > 0 for card in self.cards))),
        ]
        if self.normal is not None:
            figures.append(("look normal", f"{self.normal.num_regions:,}"))
        figures.append(("doubtful", f"{self.num_doubtful:,}"))
        rest = {
            "images of several kinds": self.num_several,
            "images without a region": self.num_empty,
            "unknown": self.num_unknown,
        }
        figures += [(name, f"{number:,}") for name, number in rest.items() if number]
        image = (metrics or {}).get("image", {})
        if "nmi" in image:
            figures += [("NMI with labels", f"{image['nmi']:.2f}"), ("accuracy", f"{image['accuracy']:.2f}")]
        return figures


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
