# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch

from anomalib_ncd.visualization.report.content import ReportContent, counted

SURE = {0: [0.9, 0.05, 0.05], 1: [0.05, 0.9, 0.05], 2: [0.05, 0.05, 0.9]}
NAMES = ["normal", "dent", "scratch"]


def load(region):
    image = np.full((32, 32, 3), region * 5 % 250, np.uint8)
    return image, np.zeros((32, 32), bool)


def build(results, names=NAMES, metrics=None, peaks_xy=None):
    return ReportContent(
        results.showing(images := results.image_results(names)), names, images, load, metrics, peaks_xy
    )


def test_one_sentence_and_the_numbers(results_of):
    by_region = [SURE[1], SURE[1], SURE[2], SURE[0], [0.1, 0.5, 0.4]]
    metrics = {"image": {"nmi": 0.5, "accuracy": 0.25}}
    content = build(results_of(by_region, [0, 0, 1, 2, 3]), metrics=metrics)
    expected = "4 regions in 4 images fall into 2 classes; 1 more looks normal; 1 region is worth a second look."
    assert content.sentence == expected
    assert content.figures == [
        *[("images", "4"), ("marked regions", "5"), ("classes", "2")],
        *[("look normal", "1"), ("doubtful", "1")],
        *[("NMI with labels", "0.50"), ("accuracy", "0.25")],
    ]


def test_a_card_per_class(results_of):
    content = build(results_of([SURE[1], SURE[1], SURE[2], SURE[0]], [0, 0, 1, 2], labels=[1, 2, 0]))
    dent, scratch = content.cards
    assert (dent.name, dent.slots, dent.color, dent.num_regions, dent.num_images) == ("dent", [1], 0, 2, 1)
    assert (scratch.name, scratch.slots, scratch.color, scratch.num_regions) == ("scratch", [2], 1, 1)
    assert dent.certainty == "90%"
    assert dent.labels == "1 of 1 labelled images are dent"
    assert content.normal.color == -1
    assert content.normal.num_regions == 1
    assert dent.typical[0].alt == "Region of part/0, class dent"


def test_classes_that_are_the_same_share_a_card(results_of):
    content = build(results_of([SURE[1], SURE[2], SURE[0]], [0, 1, 2]), ["normal", "dent", "dent"])
    [card] = content.cards
    assert (card.name, card.slots, card.num_regions, card.num_images) == ("dent", [1, 2], 2, 2)


def test_what_is_said_to_be_normal_is_set_aside(results_of):
    content = build(results_of([SURE[1], SURE[2], SURE[0]], [0, 1, 2]), ["normal", "normal", "scratch"])
    assert [card.name for card in content.cards] == ["scratch"]
    assert content.normal.slots == [0, 1]
    assert content.normal.num_regions == 2


def test_typical_regions_are_nearest_to_the_mean_and_of_different_images(results_of):
    angles = np.radians([0, 1, 2, 30, -30, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    results = results_of([SURE[1]] * 5 + [SURE[2]], [0, 0, 0, 1, 2, 3], features=features)
    builder = ReportContent(results, NAMES, [], load, None)
    # Their mean lies at 0.6 degrees.
    assert builder._most_typical(np.arange(5)) == [1, 3, 4, 0, 2]


def test_set_aside_are_first_those_with_the_highest_score(results_of):
    content = build(results_of([SURE[0]] * 20, range(20)))
    lines = [picture.lines for picture in content.normal.typical]
    assert len(lines) == 12
    assert lines[0] == ["part/19", "normal · 90%", "anomaly score 1.00"]
    assert content.sentence == "No defects were found in 20 images."


def test_doubtful_regions_come_least_sure_first_with_the_second_class(results_of):
    by_region = [SURE[1], [0.1, 0.5, 0.4], [0.2, 0.38, 0.42], *[SURE[1]] * 8]
    content = build(results_of(by_region, range(11)))
    assert [picture.lines for picture in content.doubtful] == [
        ["part/2", "scratch · 42%", "or dent"],
        ["part/1", "dent · 50%", "or scratch"],
    ]


def test_only_some_regions_are_shown_of_many(results_of):
    content = build(results_of([[0.2, 0.4, 0.4]] * 300, range(300)))
    assert len(content.doubtful) == 24
    assert content.num_doubtful == 30
    assert len(content.cards[0].typical) == 8


def test_images_are_shown_with_boxes_where_they_still_are(results_of, tmp_path):
    results = results_of([SURE[1], SURE[1], SURE[2]], [0, 1, 2])
    file = tmp_path / "0.png"
    cv2.imwrite(str(file), np.zeros((64, 64, 3), np.uint8))
    results.batch.image_path[0] = str(file)
    dent, scratch = build(results).cards
    assert [picture.alt for picture in dent.images] == ["Image part/0 with 1 outlined region"]
    assert scratch.images == []


def test_empty_classes_keep_their_card(results_of):
    content = build(results_of([SURE[1]], [0]))
    assert [card.num_regions for card in content.cards] == [1, 0]
    assert content.cards[1].typical == []
    assert content.cards[1].certainty == ""
    assert content.sentence == "1 region in 1 image falls into 1 class."


def test_images_of_several_kinds_are_shown(results_of, tmp_path):
    results = results_of([SURE[1], SURE[2], SURE[0], SURE[1], SURE[1], SURE[2]], [0, 0, 0, 1, 2, 2])
    results.batch.region_score.fill_(0.5)
    for image in range(3):
        results.batch.image_path[image] = str(tmp_path / f"{image}.png")
        cv2.imwrite(results.batch.image_path[image], np.zeros((64, 64, 3), np.uint8))
    content = build(results)
    assert content.num_several == 2
    assert [picture.lines[0] for picture in content.several] == ["part/0", "part/2"]
    assert set(content.several[1].lines[1].split(" and ")) == {"dent", "scratch"}
    assert content.several[0].alt == "Image part/0 with 3 outlined regions"
    assert ("images of several kinds", "2") in content.figures


def test_the_peak_is_marked_where_nothing_was_found(results_of, tmp_path):
    results = results_of([SURE[1], SURE[0], SURE[0]], [0, 1, 2])
    results.batch.region_area[1:] = torch.tensor([0, 7])
    results.batch.image_path[1] = str(tmp_path / "1.png")
    cv2.imwrite(results.batch.image_path[1], np.zeros((64, 64, 3), np.uint8))
    content = build(results, peaks_xy=[(9, 9), (62, 20), (9, 9)])
    assert content.num_empty == 1
    assert [(picture.lines, picture.alt) for picture in content.empty] == [
        (["part/1"], "Image part/1 with 1 outlined region")
    ]
    assert ("images without a region", "1") in content.figures
    assert content.sentence.endswith("; nothing was found in 1 image.")
    assert content.normal.num_regions == 1  # not the one without a mask
    builder = ReportContent(results, NAMES, [], load, None, [(9, 9), (62, 20), (9, 9)])
    assert builder._peak_box(1) == [pytest.approx([51.2, 13.6, 64, 26.4])]
    assert build(results).empty[0].alt == "Image part/1 with 0 outlined regions"


def test_images_in_which_nothing_was_found_are_no_regions_of_a_class(results_of):
    results = results_of([SURE[1], SURE[1], SURE[2]], [0, 1, 2])
    results.batch.region_area[1:] = torch.tensor([0, 0])
    content = build(results)
    assert [card.num_regions for card in content.cards] == [1, 0]
    assert content.sentence == "1 region in 3 images falls into 1 class; nothing was found in 2 images."


def test_unknown_regions_are_marked_the_highest_score_first(results_of):
    results = results_of([SURE[1], SURE[2], SURE[1]], [0, 1, 2])
    results.batch.update(region_unknown=torch.tensor([True, False, True]))
    content = build(results)
    assert content.num_unknown == 2
    assert content.is_unknown.tolist() == [True, False, True]
    assert [picture.lines for picture in content.unknown] == [
        ["part/2", "dent · 90%", "unknown", "anomaly score 1.00"],
        ["part/0", "dent · 90%", "unknown", "anomaly score 0.00"],
    ]
    assert ("unknown", "2") in content.figures
    assert [picture.lines[2:] for card in content.cards for picture in card.typical] == [["unknown"], ["unknown"], []]


def test_results_without_rejection_have_nothing_unknown(results_of):
    content = build(results_of([SURE[1]], [0]))
    assert (content.num_unknown, content.unknown, content.is_unknown.tolist()) == (0, [], [False])
    assert "unknown" not in dict(content.figures)


@pytest.mark.parametrize(("number", "expected"), [(0, "0 dents"), (1, "1 dent"), (1000, "1,000 dents")])
def test_numbers_have_nouns(number, expected):
    assert counted(number, "dent") == expected
