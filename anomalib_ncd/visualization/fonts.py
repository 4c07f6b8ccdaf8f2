# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Fonts of captions: the one that matplotlib brings along, and the system's where it lacks characters."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.font_manager import FontEntry, fontManager, get_font
from PIL import ImageFont

FAMILY = "DejaVu Sans"
FILE = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
REGULAR = 400
NO_LETTERS = "Last Resort"  # comes with matplotlib, and has a box with the name of its script for each character


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
