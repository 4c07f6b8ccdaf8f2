# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.font_manager import FontEntry

from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.classes.results import ImageResult, RegionResult
from anomalib_ncd.visualization import drawing
from anomalib_ncd.visualization.drawing import (
    BAND_PX,
    NORMAL_RGB,
    PALETTE_RGB,
    UNKNOWN_RGB,
    class_colours,
    draw_regions,
    draw_result,
    find_system_font,
    font_families,
    load_font,
    shortened,
    stretch_contrast,
    title_of,
)

STIX = Path(mpl.get_data_path()) / "fonts" / "ttf" / "STIXNonUni.ttf"
# Of the characters that everyone may define, STIX has this one and DejaVu Sans doesn't.
PRIVATE = "\ue0b3"

RED, GREEN = (250, 10, 10), (10, 250, 10)


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
    monkeypatch.setattr(drawing.fontManager, "ttflist", entries)
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


def grey(height, width):
    return np.full((height, width, 3), 120, np.uint8)


def painted(picture, colour):
    """Rows and columns of the pixels that have a colour."""
    return np.nonzero((picture == colour).all(axis=2))


def test_a_box_is_drawn_where_it_is():
    picture = draw_regions(grey(600, 600), [[100, 200, 300, 400]], ["a"], [RED])
    assert picture.shape == (600, 600, 3)
    assert tuple(picture[300, 100]) == tuple(picture[300, 300]) == RED
    assert tuple(picture[200, 250]) == tuple(picture[400, 250]) == RED
    assert tuple(picture[300, 200]) == tuple(picture[300, 400]) == tuple(picture[500, 500]) == (120, 120, 120)


def test_a_mask_is_outlined_inside_its_box():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    picture = draw_regions(grey(600, 600), [[100, 200, 300, 400]], ["a"], [RED], masks=[mask])
    # A tenth of the box per two mask pixels: the outline lies at 150 and 249 in x, 250 and 349 in y.
    assert tuple(picture[300, 150]) == tuple(picture[300, 249]) == RED
    assert tuple(picture[250, 200]) == tuple(picture[349, 200]) == RED
    assert tuple(picture[300, 200]) == (120, 120, 120)
    without = draw_regions(grey(600, 600), [[100, 200, 300, 400]], ["a"], [RED], masks=[None])
    assert tuple(without[300, 150]) == (120, 120, 120)


def test_the_caption_stands_above_the_box_in_its_colour():
    picture = draw_regions(grey(600, 600), [[100, 200, 300, 400]], ["a"], [RED])
    rows, columns = painted(picture[:190], RED)
    assert rows.min() > 170
    assert columns.min() == 100
    longer = draw_regions(grey(600, 600), [[100, 200, 300, 400]], ["a"], [RED], scores=[0.7])
    assert painted(longer[:190], RED)[1].max() > columns.max()


@pytest.mark.parametrize("box", [[0, 0, 80, 80], [560, 0, 600, 40], [0, 560, 40, 600], [-50, -50, 700, 700]])
def test_captions_stay_in_the_picture(box):
    picture = draw_regions(grey(600, 600), [box], ["a rather long name"], [RED], scores=[0.5])
    plain = draw_regions(grey(600, 600), [box], [""], [RED])
    # The whole plate is there: it is wider than the name's letters are high by far.
    rows, columns = np.nonzero((picture != plain).any(axis=2))
    assert columns.max() - columns.min() > 150
    assert 8 < rows.max() - rows.min() < 40


def test_captions_of_one_box_do_not_cover_each_other():
    box = [200, 200, 400, 300]
    picture = draw_regions(grey(600, 600), [box, box], ["aaaa", "bbbb"], [RED, GREEN])
    alone = [draw_regions(grey(600, 600), [box], [name], [colour]) for name, colour in (("aaaa", RED), ("bbbb", GREEN))]
    plates = [(a == colour).all(axis=2)[:195].sum() for a, colour in zip(alone, (RED, GREEN), strict=True)]
    assert (picture == RED).all(axis=2)[:195].sum() == plates[0]
    assert (picture == GREEN).all(axis=2)[305:].sum() > 0.9 * plates[1]


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((600, 900), (600, 900)),
        ((16, 40), (205, 512)),
        ((1, 64), (8, 512)),
        ((4000, 2000), (1600, 800)),
        ((2000, 60), (1600, 48)),
    ],
)
def test_pictures_are_neither_tiny_nor_huge(size_hw, expected):
    box = [0, 0, size_hw[1] / 2, size_hw[0]]
    picture = draw_regions(grey(*size_hw), [box], ["a very long name " * 5], [RED], scores=[0.25])
    assert picture.shape == (*expected, 3)
    assert painted(picture, RED)[0].size


def test_many_regions_and_none():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (200, 2))
    names = [f"class_{i}" for i in range(200)]
    picture = draw_regions(grey(600, 600), np.hstack([corners, corners + 40]), names, class_colours(names))
    assert picture.shape == (600, 600, 3)
    np.testing.assert_array_equal(draw_regions(grey(600, 600), [], [], []), grey(600, 600))


def test_names_of_other_alphabets_are_written():
    plates = [draw_regions(grey(600, 600), [[100, 200, 300, 400]], [name], [RED]) for name in ("äöü", "цар", "???")]
    assert not any(np.array_equal(plates[i], plates[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_image_stays_as_it_was():
    image = grey(600, 600)
    draw_regions(image, [[100, 200, 300, 400]], ["a"], [RED], masks=[np.ones((5, 5), bool)])
    assert (image == 120).all()


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match=r"`image` must have shape \(H, W, 3\) and be uint8"):
        draw_regions(image, [], [], [])


@pytest.mark.parametrize("name", ["class_names", "colours", "scores", "masks"])
def test_there_must_be_one_entry_per_box(name):
    arguments = {"class_names": ["a"], "colours": [RED], "scores": [0.5], "masks": [None]} | {name: []}
    with pytest.raises(ValueError, match=f"`{name}` must have one entry per box, got 0 for 1 boxes"):
        draw_regions(grey(60, 60), [[0, 0, 9, 9]], **arguments)


def test_colours_tell_classes_apart():
    names = ["normal", *(f"class_{i}" for i in range(40))]
    colours = class_colours(names, 0)
    assert colours[0] == NORMAL_RGB
    assert tuple(colours[1:11]) == PALETTE_RGB
    assert len(set(colours)) == 41
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    assert class_colours(["dent", "good", "dent"], 1) == [PALETTE_RGB[0], NORMAL_RGB, PALETTE_RGB[0]]
    assert class_colours(["normal", "dent"]) == list(PALETTE_RGB[:2])


def test_names_are_cut_short():
    assert shortened("a" * 32) == "a" * 32
    assert shortened("a" * 33) == "a" * 31 + "…"
    assert shortened("a b c", 3) == "a…"


MERGING = RegionMerging(("normal", "dent"), 0)
PIXELS = np.full((600, 700, 3), 120, np.uint8)
REGION = RegionResult(
    box_xyxy=(100, 200, 300, 400),
    area=50,
    score=0.5,
    class_id=1,
    class_name="dent",
    confidence=0.9,
    is_unknown=False,
    probabilities=(0.1, 0.9),
    mask=np.ones((200, 200), bool),
)
RESULT = ImageResult("a.png", class_id=1, class_name="dent", confidence=0.9, regions=(REGION,))


def has_colour(picture, rgb):
    return bool((picture == np.array(rgb, np.uint8)).all(axis=2).any())


def test_a_region_has_the_colour_of_its_class():
    picture = draw_result(PIXELS, RESULT, MERGING)
    assert picture.shape == (600 + BAND_PX, 700, 3)
    assert has_colour(picture, class_colours(MERGING.class_names, 0)[1])
    assert not has_colour(picture, UNKNOWN_RGB)
    assert (PIXELS == 120).all()


def test_an_unknown_region_has_a_colour_of_its_own():
    unknown = replace(RESULT, regions=(replace(REGION, is_unknown=True),), is_unknown=True)
    picture = draw_result(PIXELS, unknown, MERGING)
    assert has_colour(picture, UNKNOWN_RGB)
    assert not has_colour(picture, class_colours(MERGING.class_names, 0)[1])


def test_without_an_anomaly_nothing_is_outlined():
    picture = draw_result(PIXELS, replace(RESULT, regions=(replace(REGION, area=0),)), MERGING)
    assert (picture[BAND_PX:] == 120).all()
    assert (picture[:BAND_PX] < 100).any()  # the band says something


@pytest.mark.parametrize("name", ["dent", "a dent, a hole, or what else there may be", "Oberflaechenfehler" * 3])
def test_the_text_of_a_narrow_picture_stays_inside_it(name):
    result = replace(RESULT, regions=(), is_normal=True, class_name=name)
    picture = draw_result(np.full((900, 180, 3), 120, np.uint8), result, MERGING)
    band = picture[: len(picture) - 900]
    assert len(band) > BAND_PX  # more than one line
    assert (band < 100).any(axis=(0, 2))[:20].any()
    assert (band[:, -4:] == 255).all()
    assert (band[-3:] == 255).all()


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({}, "dent 90%"),
        ({"is_unknown": True}, "unknown 90%"),
        ({"is_normal": True, "regions": ()}, "good: nothing was found (dent 90%)"),
        ({"is_normal": True, "class_name": "good part"}, "good part 90%"),
        ({"is_normal": True, "regions": (), "class_name": "", "confidence": 0.0}, "good: nothing was found"),
    ],
)
def test_the_title(values, title):
    assert title_of(replace(RESULT, **values)) == title


def test_normal_regions_can_be_left_out():
    normal = replace(RESULT, regions=(replace(REGION, class_id=0, class_name="good part"),))
    merging = replace(MERGING, class_names=("good part", "dent"))
    assert has_colour(draw_result(PIXELS, normal, merging)[BAND_PX:], NORMAL_RGB)
    assert not has_colour(draw_result(PIXELS, normal, merging, draw_normal=False)[BAND_PX:], NORMAL_RGB)


def test_boxes_alone_are_drawn_to_scale():
    small = draw_regions(np.zeros((400, 800, 3), np.uint8), [(200, 100, 600, 300)], None, [RED], side_range_px=(1, 400))
    assert small.shape == (200, 400, 3)
    for x, y in ((100, 50), (300, 50), (100, 150), (300, 150), (200, 50), (100, 100)):
        assert tuple(small[y, x]) == RED
    assert not small[100, 200].any()
    assert not small[20, 20].any()


def test_boxes_may_leave_the_image_and_small_images_stay_small():
    image = np.full((40, 60, 3), 90, np.uint8)
    small = draw_regions(image, [(-10, -10, 100, 100)], None, [RED], side_range_px=(1, 320))
    assert small.shape == image.shape
    assert tuple(small[0, 30]) == tuple(small[39, 30]) == tuple(small[20, 0]) == tuple(small[20, 59]) == RED
    assert (image == 90).all()


def test_dark_pictures_are_stretched():
    dark = np.tile(np.arange(20, 120, dtype=np.uint8)[:, None, None], (1, 30, 3))
    dark[0, 0] = 255  # one bright pixel doesn't keep the rest dark
    stretched = stretch_contrast(dark)
    assert (stretched.min(), stretched.max(), dark.max()) == (0, 255, 255)
    assert (np.diff(stretched[:, 1, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("value", [0, 50, 255])
def test_flat_pictures_stay_as_they_are(value):
    flat = np.full((8, 8, 3), value, np.uint8)
    np.testing.assert_array_equal(stretch_contrast(flat), flat)


def test_noise_is_not_blown_up_and_colours_stay():
    image = np.full((10, 10, 3), (100, 104, 108), np.uint8)
    assert np.ptp(stretch_contrast(image)) == 32
    red = np.zeros((10, 10, 3), np.uint8)
    red[:5, :, 0] = 120
    assert stretch_contrast(red)[0, 0].tolist() == [255, 0, 0]
