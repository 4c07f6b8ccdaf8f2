# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A picture of a result: its regions outlined and named, under a band that says the class of the image."""

from __future__ import annotations

import numpy as np

from anomalib_ncd.deploy.results import ImageResult

BAND_PX = 26
LINE_PX = 19
UNKNOWN = "unknown"
UNKNOWN_RGB = (160, 0, 0)


def draw_result(pixels: np.ndarray, result: ImageResult, class_names: tuple[str, ...]) -> np.ndarray:
    """Draw the regions of an image; it imports anomalib's and matplotlib's parts that drawing needs.

    Args:
        pixels: The image, ``(H, W, 3)`` uint8 RGB.
        result: Its result; outlines are drawn where it has masks.
        class_names: Names of all classes, so that a class has one colour in all pictures.

    Returns:
        ``(h + 26, w, 3)`` uint8, the image scaled to a size that can be read; the band on top is higher where its text
        needs more lines.
    """
    from anomalib_ncd.visualization.drawing import class_colours, draw_regions  # noqa: PLC0415

    regions = result.regions if result.num_anomalies else ()
    colours = class_colours(class_names)
    drawn = draw_regions(
        pixels,
        [region.box_xyxy for region in regions],
        [UNKNOWN if region.is_unknown else region.class_name for region in regions],
        [UNKNOWN_RGB if region.is_unknown else colours[region.class_id] for region in regions],
        [region.confidence for region in regions],
        [region.mask for region in regions],
    )
    return np.concatenate([_band(title_of(result), drawn.shape[1]), drawn])


def _band(text: str, width: int) -> np.ndarray:
    """Black on white, in as many lines as the width asks for."""
    from PIL import Image, ImageDraw  # noqa: PLC0415

    from anomalib_ncd.visualization.drawing import load_font, shortened  # noqa: PLC0415

    font, room = load_font(15), width - 8
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
        length = len(line)
        while length > 1 and font.getlength(shortened(line, length)) > room:
            length -= 1
        draw.text((4, BAND_PX // 2 + LINE_PX * number), shortened(line, length), "black", font, "lm")
    return np.asarray(band)


def title_of(result: ImageResult) -> str:
    """Say the class of an image.

    Args:
        result: A result without error.

    Example:
        >>> title_of(ImageResult("a.png", class_name="dent", confidence=0.87, is_normal=True, normal_reason="detector"))
        'good: the detector finds nothing (dent 87%)'
    """
    name = f"{UNKNOWN if result.is_unknown else result.class_name} {result.confidence:.0%}"
    reasons = {"detector": "the detector finds nothing", "empty_mask": "no main element"}
    if result.normal_reason in reasons:
        return f"good: {reasons[result.normal_reason]} ({name})"
    return name
