# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import numpy as np
import pytest

from anomalib_ncd.deploy.line.drawing import BAND_PX, UNKNOWN_RGB, draw_result, title_of
from anomalib_ncd.deploy.results import ImageResult, RegionResult
from anomalib_ncd.visualization.drawing import class_colours

NAMES = ("normal", "dent")
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
RESULT = ImageResult("a.png", class_id=1, class_name="dent", confidence=0.9, num_anomalies=1, regions=(REGION,))


def has_colour(picture, rgb):
    return bool((picture == np.array(rgb, np.uint8)).all(axis=2).any())


def test_a_region_has_the_colour_of_its_class():
    picture = draw_result(PIXELS, RESULT, NAMES)
    assert picture.shape == (600 + BAND_PX, 700, 3)
    assert has_colour(picture, class_colours(NAMES)[1])
    assert not has_colour(picture, UNKNOWN_RGB)
    assert (PIXELS == 120).all()


def test_an_unknown_region_has_a_colour_of_its_own():
    unknown = replace(RESULT, regions=(replace(REGION, is_unknown=True),), is_unknown=True)
    picture = draw_result(PIXELS, unknown, NAMES)
    assert has_colour(picture, UNKNOWN_RGB)
    assert not has_colour(picture, class_colours(NAMES)[1])


def test_without_an_anomaly_nothing_is_outlined():
    picture = draw_result(PIXELS, replace(RESULT, num_anomalies=0), NAMES)
    assert (picture[BAND_PX:] == 120).all()
    assert (picture[:BAND_PX] < 100).any()  # the band says something


@pytest.mark.parametrize("name", ["dent", "a dent, a hole, or what else there may be", "Oberflaechenfehler" * 3])
def test_the_text_of_a_narrow_picture_stays_inside_it(name):
    result = replace(RESULT, regions=(), num_anomalies=0, is_normal=True, normal_reason="detector", class_name=name)
    picture = draw_result(np.full((900, 180, 3), 120, np.uint8), result, NAMES)
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
        ({"is_normal": True, "normal_reason": "empty_mask"}, "good: no main element (dent 90%)"),
        ({"is_normal": True, "normal_reason": "class", "class_name": "normal"}, "normal 90%"),
    ],
)
def test_the_title(values, title):
    assert title_of(replace(RESULT, **values)) == title
