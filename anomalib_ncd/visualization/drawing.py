# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The one drawing of an image with its regions and their classes, in letters that a font of the system has."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import FontEntry, fontManager, get_font
from PIL import Image, ImageDraw, ImageFont

from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.classes.results import ImageResult
from anomalib_ncd.regions.crops import check_image

FAMILY = "DejaVu Sans"
FILE = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
REGULAR = 400
NO_LETTERS = "Last Resort"  # comes with matplotlib, and has a box with the name of its script for each character

BAND_PX = 26
LINE_PX = 19
UNKNOWN = "unknown"
UNKNOWN_RGB = (160, 0, 0)
NORMAL_RGB = (140, 140, 140)
DARK_RGB = (25, 25, 25)
PALETTE_RGB = (
    (230, 97, 1),
    (31, 119, 180),
    (44, 160, 44),
    (214, 39, 120),
    (148, 103, 189),
    (200, 170, 0),
    (23, 190, 207),
    (140, 86, 75),
    (215, 25, 28),
    (0, 90, 70),
)
MAX_NAME = 32
DARKEST, BRIGHTEST = 0.01, 0.99  # quantiles of an image's values that a picture spans
MAX_GAIN = 4.0


@lru_cache(maxsize=256)
def load_font(size_px: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Load the font for a caption: DejaVu Sans, which has Latin, Greek and Cyrillic, or one of the system's."""
    font = find_system_font(text)
    return ImageFont.truetype(str(FILE) if font is None else font.fname, size_px)


def font_families(texts: Iterable[str]) -> list[str]:
    """Families for matplotlib, which takes each character from the first that has it."""
    found = [find_system_font(text) for text in texts]
    return list(dict.fromkeys([FAMILY, *(font.name for font in found if font is not None)]))


@lru_cache(maxsize=256)
def find_system_font(text: str) -> FontEntry | None:
    """Find an upright font with most of the characters that DejaVu Sans lacks; ``None`` if none has any."""
    characters = {ord(character) for character in text if not character.isspace()}
    known = _count_known(str(FILE), characters)
    if known == len(characters):
        return None
    upright = [font for font in fontManager.ttflist if font.style == "normal" and not font.name.startswith(NO_LETTERS)]
    counts = [_count_known(font.fname, characters) for font in upright]
    most = max(counts, default=0)
    best = [font for font, count in zip(upright, counts, strict=True) if count == most > known]
    weights = {"normal": REGULAR, "bold": 700}  # matplotlib gives some by name

    def strangeness(font: FontEntry) -> tuple[int, str, str]:
        weight = font.weight if isinstance(font.weight, int) else weights.get(font.weight, 500)
        return abs(weight - REGULAR), font.name, font.fname

    return min(best, key=strangeness, default=None)


def _count_known(file: str, characters: set[int]) -> int:
    try:
        font = get_font(file)
    except (OSError, RuntimeError):  # uninstalled since matplotlib looked, or of a kind that it can't read
        return 0
    return sum(font.get_char_index(character) > 0 for character in characters)


def draw_result(
    pixels: np.ndarray,
    result: ImageResult,
    merging: RegionMerging,
    side_range_px: tuple[int, int] = (512, 1600),
    *,
    draw_normal: bool = True,
) -> np.ndarray:
    """Draw the regions of an image ``(H, W, 3)`` uint8 RGB under a band that says its class.

    Masks are outlined where the result has some; regions are left out where nothing was found, and those of *normal*,
    which are grey, without ``draw_normal``. ``merging`` names all classes, so that a class has one colour in all
    pictures. The picture ``(h + 26, w, 3)`` is scaled, see :func:`draw_regions`; the band is higher where its text
    needs more lines.
    """
    colours = class_colours(merging.class_names, merging.normal_slot)
    shown = [
        region
        for region in result.regions
        if region.area and (draw_normal or region.is_unknown or not merging.is_normal(region.class_id))
    ]
    drawn = draw_regions(
        pixels,
        [region.box_xyxy for region in shown],
        [UNKNOWN if region.is_unknown else region.class_name for region in shown],
        [UNKNOWN_RGB if region.is_unknown else colours[region.class_id] for region in shown],
        [region.confidence for region in shown],
        [region.mask for region in shown],
        side_range_px,
    )
    return np.concatenate([_band(title_of(result), drawn.shape[1]), drawn])


def title_of(result: ImageResult) -> str:
    """Say the class of an image."""
    if not result.class_name:
        return "good: nothing was found"
    name = f"{UNKNOWN if result.is_unknown else result.class_name} {result.confidence:.0%}"
    found = any(region.area for region in result.regions)
    return name if found else f"good: nothing was found ({name})"


def class_colours(class_names: Sequence[str], normal_slot: int | None = None) -> list[tuple[int, int, int]]:
    """Choose an RGB colour for each class; the first ten are easy to tell apart, and that of false alarms is grey."""
    colours = {} if normal_slot is None else {class_names[normal_slot]: NORMAL_RGB}
    num_grey = len(colours)
    for name in class_names:
        if name not in colours:
            colours[name] = _colour(len(colours) - num_grey)
    return [colours[name] for name in class_names]


def draw_regions(
    image: np.ndarray,
    boxes_xyxy: Sequence[Sequence[float]] | np.ndarray,
    class_names: Sequence[str] | None,
    colours: Sequence[tuple[int, int, int]],
    scores: Sequence[float] | None = None,
    masks: Sequence[np.ndarray | None] | None = None,
    side_range_px: tuple[int, int] = (512, 1600),
) -> np.ndarray:
    """Draw regions onto a copy of an image: box, outline of the mask, name of the class and its confidence.

    Args:
        image: ``(H, W, 3)`` uint8, RGB; ``ValueError`` for others.
        boxes_xyxy: ``(R, 4)`` boxes in image pixels, half-open; they may leave the image.
        class_names: Name of the class of each region; long ones are cut short. ``None``: no captions.
        colours: RGB of each region, see :func:`class_colours`.
        scores: Confidence of each region, 0 to 1. ``None``: none is written.
        masks: Mask of each region, ``(h, w)`` bool, resized over its box. ``None``: boxes alone.
        side_range_px: Range that the longer side of the copy is brought into, so that captions can be read on small
            images and pictures of large ones stay small.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    _check_regions(image, len(boxes), class_names=class_names, colours=colours, scores=scores, masks=masks)
    longer = max(image.shape[:2])
    scale = float(np.clip(longer, *side_range_px)) / longer
    canvas = scaled(image, scale)
    line = max(2, round(max(canvas.shape[:2]) / 300))
    corners = np.round(boxes * scale).astype(int)
    for corner, mask, colour in zip(corners, () if masks is None else masks, colours, strict=False):
        if mask is not None:
            _draw_mask(canvas, corner, mask, colour, line)
    for corner, colour in zip(corners, colours, strict=True):
        _draw_box(canvas, corner, colour, line)
    if class_names is None:
        return canvas
    captions = [shortened(name) for name in class_names]
    if scores is not None:
        captions = [f"{name} {score:.0%}" for name, score in zip(captions, scores, strict=True)]
    return _with_captions(canvas, corners, captions, colours)


def stretch_contrast(image: np.ndarray) -> np.ndarray:
    """Stretch the contrast of a picture ``(H, W, 3)`` uint8 for people's eyes; the network sees images as they are.

    The values from the 1 % to the 99 % quantile are spread over black to white, in all channels alike. They are spread
    by no more than a factor of four, and what is dark then stays dark, what is bright bright.
    """
    shares = np.bincount(image.ravel(), minlength=256).cumsum() / image.size
    low, high = np.searchsorted(shares, (DARKEST, BRIGHTEST)).tolist()
    gain = min(255 / max(high - low, 1), MAX_GAIN)
    darkest = low / max(255 - (high - low), 1) * (255 - gain * (high - low))
    table = np.clip((np.arange(256) - low) * gain + darkest, 0, 255).round().astype(np.uint8)
    return cv2.LUT(image, table)


def _band(text: str, width: int) -> np.ndarray:
    """Black on white, in as many lines as the width asks for."""
    font, room = load_font(15, text), width - 8
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    band = Image.new("RGB", (width, BAND_PX + LINE_PX * (len(lines) - 1)), "white")
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        draw.text((4, BAND_PX // 2 + LINE_PX * number), _fitting(line, font, room + 6), "black", font, "lm")
    return np.asarray(band)


def shortened(name: str, length: int = MAX_NAME) -> str:
    """Cut a long name short."""
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def _check_regions(image: np.ndarray, num_regions: int, **per_region: Sequence[object] | None) -> None:
    check_image(image)
    for name, values in per_region.items():
        if values is not None and len(values) != num_regions:
            msg = f"`{name}` must have one entry per box, got {len(values)} for {num_regions} boxes."
            raise ValueError(msg)


def _colour(index: int) -> tuple[int, int, int]:
    """A colour by number; beyond the palette, hues far from each other."""
    if index < len(PALETTE_RGB):
        return PALETTE_RGB[index]
    hue, brightness = index * 0.618034 % 1.0, (0.95, 0.6, 0.8)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, brightness)
    return round(red * 255), round(green * 255), round(blue * 255)


def scaled(image: np.ndarray, scale: float) -> np.ndarray:
    """A copy of an image ``(H, W, 3)``, enlarged or shrunk."""
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _draw_mask(
    canvas: np.ndarray, corner: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], line: int
) -> None:
    left, top, right, bottom = corner.tolist()
    size_wh = max(1, right - left), max(1, bottom - top)
    resized = cv2.resize(mask.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(resized, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(canvas, contours, -1, DARK_RGB, line + 2)
    cv2.drawContours(canvas, contours, -1, colour, line)


def _draw_box(canvas: np.ndarray, corner: np.ndarray, colour: tuple[int, int, int], line: int) -> None:
    """Draw a box, inside the canvas, with a dark line around it that shows on light images."""
    height, width = canvas.shape[:2]
    limit = np.array([width - line, height - line, width - line, height - line])
    left, top, right, bottom = np.clip(corner, line - 1, np.maximum(limit, line - 1)).tolist()
    cv2.rectangle(canvas, (left, top), (right, bottom), DARK_RGB, line + 2)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, line)


def _with_captions(
    canvas: np.ndarray, corners: np.ndarray, captions: Sequence[str], colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    height, width = canvas.shape[:2]
    size = max(13, round(max(height, width) / 60))
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    taken: list[tuple[int, int, int, int]] = []
    for corner, caption, colour in zip(corners.tolist(), captions, colours, strict=True):
        font = load_font(size, caption)
        text = _fitting(caption, font, width - 4)
        text_width, text_height = round(font.getlength(text)) + 6, round(font.size * 1.25) + 2
        place = _free_place(corner, (text_width, text_height), (width, height), taken, corners.tolist())
        taken.append(place)
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colour)
        ink = "black" if np.dot(colour, (0.299, 0.587, 0.114)) > 135 else "white"
        draw.text((place[0] + 3, place[1] + text_height // 2), text, ink, font, "lm")
    return np.asarray(picture).copy()


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut a caption short until it fits; a confidence at its end stays."""
    name, _, end = text.rpartition(" ") if text.endswith("%") else (text, "", "")
    length = len(name)
    while length > 2 and font.getlength(text) > width - 6:
        length -= 1
        text = f"{shortened(name, length)} {end}".rstrip()
    return text


def _free_place(
    corner: Sequence[int],
    size_wh: tuple[int, int],
    canvas_wh: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
    regions: Sequence[Sequence[int]],
) -> tuple[int, int, int, int]:
    """Where a caption goes: above its box, below, beside or inside it; where it covers other captions the least."""
    (left, top, right, bottom), (width, height) = corner, size_wh
    places = [(left, top - height), (left, bottom), (right, top), (left - width, top), (left, top)]
    boxes = []
    for wanted in places:
        x, y = np.clip(wanted, 0, np.maximum(0, np.subtract(canvas_wh, size_wh))).tolist()
        boxes.append((x, y, x + width, y + height))

    def cost(box: tuple[int, int, int, int]) -> float:
        """Pixels that are covered: other captions are worst, then other regions, then the region itself."""
        others = sum(_overlap(box, region) for region in regions) - _overlap(box, corner)
        return 4 * sum(_overlap(box, caption) for caption in taken) + 0.3 * others + 0.25 * _overlap(box, corner)

    return min(boxes, key=cost)  # the first of the best


def _overlap(a: Sequence[int], b: Sequence[int]) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
