# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What stands in the report, as plain data that the template only has to lay out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from anomalib_ncd.regions.classes.merging import first_slots
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.visualization.drawing import draw_regions, stretch_contrast
from anomalib_ncd.visualization.gallery import OUTLINE_RGB, region_tile
from anomalib_ncd.visualization.report.certainty import Certainty, region_certainty
from anomalib_ncd.visualization.report.crops import jpeg_data_uri

TYPICAL_REGIONS = 8
IMAGES_PER_CLASS = 4
DOUBTFUL_REGIONS = 24
SEVERAL_IMAGES = 12
EMPTY_IMAGES = 12
PEAK_SIDE = 0.2  # of the box around a peak, as a share of the longer side of the image
SUSPICIOUS_REGIONS = 12
TILE_PX = 160
IMAGE_PX = 320
TILE_MARGIN = 150  # a grey for light and dark pages

LoadRegion = Callable[[int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Finding:
    """A line of a section.

    Attributes:
        level: ``"plain"``, or ``"warning"`` where something is to be done.
        text: What was found.
        advice: What to do about it; may be empty.
    """

    level: Literal["plain", "warning"]
    text: str
    advice: str = ""


@dataclass(frozen=True)
class ReportSection:
    """A section of findings beside those that every report has.

    Attributes:
        title: Heading.
        findings: Its lines.
        hint: What the section shows; may be empty.
    """

    title: str
    findings: Sequence[Finding]
    hint: str = ""


@dataclass(frozen=True)
class Picture:
    """An image of the page: its data URI, the text that stands for it, a caption, and the region that it shows."""

    src: str
    alt: str
    lines: list[str] = field(default_factory=list)
    region: int | None = None


@dataclass(frozen=True)
class ClassCard:
    """A discovered class.

    Attributes:
        name: Its name.
        slot: Index of its first slot.
        slots: Indices of all its slots.
        color: Number of its colour; -1 for normal.
        num_regions: Number of regions.
        num_images: Number of images that have such regions.
        certainty: Mean certainty as text; empty without regions.
        labels: What the labels say of the images of this class; empty without labels.
        typical: Most typical regions.
        images: Images they came from, outlined.
    """

    name: str
    slot: int
    slots: list[int]
    color: int
    num_regions: int
    num_images: int
    certainty: str
    labels: str
    typical: list[Picture]
    images: list[Picture]


@dataclass(frozen=True)
class ReportContent:
    """Everything that the page shows but the map; ``is_unknown`` is ``(R,)`` bool, regions unlike all of the run."""

    sentence: str
    figures: list[tuple[str, str]]
    cards: list[ClassCard]
    normal: ClassCard | None
    doubtful: list[Picture]
    num_doubtful: int
    several: list[Picture]
    num_several: int
    empty: list[Picture]
    num_empty: int
    unknown: list[Picture]
    num_unknown: int
    certainty: Certainty
    is_unknown: np.ndarray


class ContentBuilder:
    """Gathers the content of a report.

    Args:
        results: Predictions under their names, see :meth:`RunResults.named`.
        class_names: Name of each slot.
        load: Gives pixels and mask of a region by its index in the batch.
        metrics: What ``metrics.json`` says.
        peaks_xy: Where the anomaly map of each image is highest, in pixels. Defaults to ``None``: not known.
    """

    def __init__(
        self,
        results: RunResults,
        class_names: Sequence[str],
        load: LoadRegion,
        metrics: dict[str, Any] | None,
        peaks_xy: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        self.results, self.batch = results, results.batch
        self.class_names, self.load, self.metrics = list(class_names), load, metrics
        self.peaks_xy = peaks_xy
        normal = results.normal_slot
        self.normal = None if normal is None else first_slots(class_names)[normal]
        self.certainty = region_certainty(results.batch, class_names)
        self.image_of = results.batch.region_image_index.numpy()
        self.has_mask = results.batch.region_area.numpy() > 0
        unknown = results.batch.region_unknown  # runs without rejection have none
        self.is_unknown = np.zeros(len(self.image_of), bool) if unknown is None else unknown.numpy().astype(bool)

    def build(self) -> ReportContent:
        """Gather everything."""
        slots = sorted(set(first_slots(self.class_names)) - {self.normal})
        cards = [self._card(slot, color) for color, slot in enumerate(slots)]
        normal = None if self.normal is None else self._card(self.normal, -1)
        doubtful, unknown = self._doubtful(), self._most_suspicious(np.flatnonzero(self.is_unknown))
        sets = [result.classes for result in self.results.image_results(self.class_names)]
        several = [image for image, classes in enumerate(sets) if len(classes) > 1]
        empty = np.setdiff1d(np.arange(len(sets)), self.image_of[self.has_mask]).tolist()
        return ReportContent(
            sentence=self._sentence(cards, normal, len(doubtful), len(empty)),
            figures=self._figures(cards, normal, len(doubtful), len(several), len(empty)),
            cards=cards,
            normal=normal,
            doubtful=[self.picture(region, with_runner_up=True) for region in doubtful[:DOUBTFUL_REGIONS]],
            num_doubtful=len(doubtful),
            several=self._pictures_of_images(several, lambda image: " and ".join(sets[image]), SEVERAL_IMAGES),
            num_several=len(several),
            empty=self._pictures_of_images(empty, lambda _: "", EMPTY_IMAGES, boxes_of=self._peak_box),
            num_empty=len(empty),
            unknown=[self.picture(region, with_score=True) for region in unknown],
            num_unknown=int(self.is_unknown.sum()),
            certainty=self.certainty,
            is_unknown=self.is_unknown,
        )

    def picture(self, region: int, *, with_runner_up: bool = False, with_score: bool = False) -> Picture:
        """A region as a tile."""
        key = self.results.image_keys[self.image_of[region]]
        name, value = self.class_names[self.certainty.slot[region]], self.certainty_text(self.certainty.value[region])
        lines = [key, f"{name} · {value}"]
        if self.is_unknown[region]:
            lines.append("unknown")
        runner_up = int(self.certainty.runner_up[region])
        if with_runner_up and runner_up >= 0:
            lines.append(f"or {self.class_names[runner_up]}")
        if with_score:
            lines.append(f"anomaly score {float(self.batch.region_score[region]):.2f}")
        tile = region_tile(*self.load(region), TILE_PX, TILE_MARGIN)
        return Picture(jpeg_data_uri(tile), f"Region of {key}, class {name}", lines, int(region))

    def certainty_text(self, value: float) -> str:
        """A certainty as people read it."""
        return f"{value:.0%}" if self.certainty.is_probability else f"{value:+.2f}"

    def _card(self, slot: int, color: int) -> ClassCard:
        """What is known of a class."""
        is_normal = slot == self.normal
        members = np.flatnonzero((self.certainty.slot == slot) & self.has_mask)  # not images in which nothing was found
        shown = self._most_suspicious(members) if is_normal else self._most_typical(members)
        values = self.certainty.value[members]
        slots = [index for index, first in enumerate(first_slots(self.class_names)) if first == slot]
        return ClassCard(
            name=self.class_names[slot],
            slot=slot,
            slots=slots,
            color=color,
            num_regions=len(members),
            num_images=len(set(self.image_of[members].tolist())),
            certainty=self.certainty_text(float(values.mean())) if len(members) else "",
            labels=self._labels_of(slots),
            typical=[self.picture(region, with_score=is_normal) for region in shown],
            images=[] if is_normal else self._images_of(slot, shown),
        )

    def _most_typical(self, members: np.ndarray) -> list[int]:
        """Regions nearest to the mean of their class, those of other images first."""
        order = members[np.lexsort((-self.certainty.value[members], self.certainty.distance[members]))].tolist()
        _, first_of_image = np.unique(self.image_of[order], return_index=True)
        first = [order[index] for index in sorted(first_of_image)]
        taken = set(first)
        return [*first, *(region for region in order if region not in taken)][:TYPICAL_REGIONS]

    def _most_suspicious(self, members: np.ndarray) -> list[int]:
        """Regions that the detector scored highest."""
        scores = self.batch.region_score.numpy()[members]
        return members[np.argsort(-scores, kind="stable")][:SUSPICIOUS_REGIONS].tolist()

    def _images_of(self, slot: int, regions: Sequence[int]) -> list[Picture]:
        """Images that regions came from, with all regions of the class outlined."""
        images = dict.fromkeys(int(self.image_of[region]) for region in regions)
        return self._pictures_of_images(images, lambda _: "", IMAGES_PER_CLASS, slot)

    def _pictures_of_images(
        self,
        images: Iterable[int],
        caption: Callable[[int], str],
        most: int,
        slot: int | None = None,
        boxes_of: Callable[[int], list[list[float]]] | None = None,
    ) -> list[Picture]:
        """Images with outlined boxes: those of all regions, of the regions of a class, or given ones."""
        pictures: list[Picture] = []
        for image in images:
            try:
                pixels = read_image(self.batch.image_path[image], self.results.bit_depth)
            except (OSError, ValueError):  # moved since the run; the crops are still there
                continue
            boxes = self._boxes(image, slot) if boxes_of is None else boxes_of(image)
            colours = [OUTLINE_RGB] * len(boxes)
            drawn = draw_regions(stretch_contrast(pixels), boxes, None, colours, side_range_px=(1, IMAGE_PX))
            key = self.results.image_keys[image]
            alt = f"Image {key} with {len(boxes)} outlined region{'s' * (len(boxes) != 1)}"
            lines = [key, caption(image)] if caption(image) else [key]
            pictures.append(Picture(jpeg_data_uri(drawn), alt, lines))
            if len(pictures) == most:
                break
        return pictures

    def _boxes(self, image: int, slot: int | None) -> list[list[float]]:
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

    def _doubtful(self) -> list[int]:
        """Doubtful regions, the least sure first."""
        doubtful = np.flatnonzero(self.certainty.is_doubtful)
        return doubtful[np.argsort(self.certainty.value[doubtful], kind="stable")].tolist()

    def _sentence(self, cards: Sequence[ClassCard], normal: ClassCard | None, num_doubtful: int, num_empty: int) -> str:
        """What was found, in one sentence."""
        found = [card for card in cards if card.num_regions]
        num_images = len(self.batch.image_path)
        if not found:
            return f"No defects were found in {counted(num_images, 'image')}."
        num_regions = sum(card.num_regions for card in found)
        sentence = (
            f"{counted(num_regions, 'region')} in {counted(num_images, 'image')} "
            f"{'fall' if num_regions != 1 else 'falls'} into {counted(len(found), 'class', 'classes')}"
        )
        if normal is not None and normal.num_regions:
            sentence += f"; {counted(normal.num_regions, 'more looks', 'more look')} normal"
        if num_doubtful:
            sentence += f"; {counted(num_doubtful, 'region is', 'regions are')} worth a second look"
        if num_empty:
            sentence += f"; nothing was found in {counted(num_empty, 'image')}"
        return f"{sentence}."

    def _figures(
        self,
        cards: Sequence[ClassCard],
        normal: ClassCard | None,
        num_doubtful: int,
        num_several: int,
        num_empty: int,
    ) -> list[tuple[str, str]]:
        """The numbers at the top."""
        figures = [
            ("images", f"{len(self.batch.image_path):,}"),
            ("marked regions", f"{int((self.batch.region_area > 0).sum()):,}"),
            ("classes", str(sum(card.num_regions > 0 for card in cards))),
        ]
        if normal is not None:
            figures.append(("look normal", f"{normal.num_regions:,}"))
        figures.append(("doubtful", f"{num_doubtful:,}"))
        if num_several:
            figures.append(("images of several kinds", f"{num_several:,}"))
        if num_empty:
            figures.append(("images without a region", f"{num_empty:,}"))
        if self.is_unknown.any():
            figures.append(("unknown", f"{int(self.is_unknown.sum()):,}"))
        image = (self.metrics or {}).get("image", {})
        if "nmi" in image:
            figures += [("NMI with labels", f"{image['nmi']:.2f}"), ("accuracy", f"{image['accuracy']:.2f}")]
        return figures


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "region"), counted(1200, "region"), counted(2, "class", "classes")
        ('1 region', '1,200 regions', '2 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
