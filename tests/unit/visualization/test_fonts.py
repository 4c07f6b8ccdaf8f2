# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.font_manager import FontEntry

from anomalib_ncd.visualization import fonts
from anomalib_ncd.visualization.fonts import find_system_font, font_families, load_font

STIX = Path(mpl.get_data_path()) / "fonts" / "ttf" / "STIXNonUni.ttf"
# Of the characters that everyone may define, STIX has this one and DejaVu Sans doesn't.
PRIVATE = "\ue0b3"


@pytest.fixture(autouse=True)
def system_fonts(monkeypatch):
    """A system with STIX in two weights, in italics, as a font of boxes, and a font that is gone."""
    entries = [
        FontEntry(fname="/nowhere/gone.ttf", name="Gone", weight=400),
        FontEntry(fname=str(STIX), name="Bold", weight="bold"),
        FontEntry(fname=str(STIX), name="Last Resort High-Efficiency", weight=400),
        FontEntry(fname=str(STIX), name="Slanted", style="italic", weight=400),
        FontEntry(fname=str(STIX), name="Regular", weight="normal"),
    ]
    monkeypatch.setattr(fonts.fontManager, "ttflist", entries)
    for function in (find_system_font, load_font):
        function.cache_clear()
    yield
    for function in (find_system_font, load_font):
        function.cache_clear()


def test_the_font_has_the_size_asked_for():
    assert load_font(20).size == 20
    assert load_font(20).getlength("scratch") > load_font(13).getlength("scratch")


@pytest.mark.parametrize("text", ["", "Kratzer größer als 2 µm …", "λ ж"])
def test_european_text_is_written_in_the_font_that_comes_along(text):
    assert find_system_font(text) is None
    assert load_font(15, text).getname()[0] == "DejaVu Sans"


def test_other_text_is_written_in_an_upright_font_of_the_system():
    assert find_system_font(PRIVATE).name == "Regular"
    assert load_font(15, PRIVATE).path == str(STIX)
    assert font_families(["dent", PRIVATE, PRIVATE]) == ["DejaVu Sans", "Regular"]


def test_what_no_font_has_stays_in_the_font_that_comes_along():
    assert find_system_font("\U0010fffd") is None
    assert load_font(15, "\U0010fffd").getname()[0] == "DejaVu Sans"


def test_a_font_that_knows_fewer_characters_is_not_taken():
    assert find_system_font(f"царапина {PRIVATE}") is None
