# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import numpy as np
import pytest

from anomalib_ncd.regions.classes.prediction import (
    RegionMerging,
    choose_classes,
    classes_of_image,
    counting_regions,
    first_slots,
    merge_image,
    merging_temperature_of,
    named_probabilities,
    novel_probabilities,
    region_weights,
)

PROBABILITIES = np.array([[0.40, 0.30, 0.05, 0.25], [0.10, 0.20, 0.60, 0.10], [0.25, 0.25, 0.25, 0.25]], np.float32)
TWINS = ["normal", "scratch", "dent", "scratch"]

MERGING = RegionMerging(("normal", "dark", "bright", "dark"), normal_slot=0, temperature=10.0)
DARK, BRIGHT, UNSURE, NORMAL = [0.1, 0.8, 0.1, 0], [0.1, 0.1, 0.8, 0], [0.2, 0.3, 0.1, 0.4], [0.9, 0.1, 0, 0]

NAMES = ["normal", "a", "b", "a"]


def test_slots_of_one_name_have_one_first_slot():
    assert first_slots(["normal", "scratch", "dent", "scratch"]) == [0, 1, 2, 1]
    assert first_slots(["a", "a", "a"]) == [0, 0, 0]
    assert first_slots([]) == []


def test_probabilities_of_one_name_add_up():
    expected = [[0.40, 0.55, 0.05, 0], [0.10, 0.30, 0.60, 0], [0.25, 0.50, 0.25, 0]]
    np.testing.assert_allclose(named_probabilities(PROBABILITIES, TWINS), expected, atol=1e-6)


def test_the_most_probable_name_wins_and_within_it_the_most_probable_slot():
    slots, scores = choose_classes(PROBABILITIES, TWINS)
    assert slots.tolist() == [1, 2, 1]
    np.testing.assert_allclose(scores, [0.55, 0.60, 0.50], atol=1e-6)
    slots, _ = choose_classes(np.array([[0.4, 0.1, 0.1, 0.4]]), ["a", "b", "c", "b"])
    assert slots.tolist() == [3]


def test_without_twins_it_is_the_largest_probability():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), size=50).astype(np.float32)
    slots, scores = choose_classes(probabilities, ["a", "b", "c", "d"])
    np.testing.assert_array_equal(slots, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(scores, probabilities.max(axis=1))


def test_nothing_gives_nothing():
    slots, scores = choose_classes(np.zeros((0, 4)), TWINS)
    assert slots.shape == scores.shape == (0,)


def test_every_slot_needs_a_name():
    with pytest.raises(ValueError, match=r"`class_names` must name the K slots of \(N, K\), got 2 for \(3, 4\)"):
        choose_classes(PROBABILITIES, ["a", "b"])
    with pytest.raises(ValueError, match=r"got 4 for \(4,\)"):
        named_probabilities(np.zeros(4), TWINS)


def brute_force(probabilities, areas, temperature):
    weights = np.exp(np.sqrt(areas.astype(float)) / temperature)
    return np.einsum("r,r...->...", weights / weights.sum(), probabilities.astype(float))


@pytest.fixture
def regions():
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(5), size=(12, 2)).astype(np.float32), rng.integers(0, 20_000, 12)


@pytest.mark.parametrize("temperature", [50, 100])
def test_equals_golden(golden_dir, temperature):
    golden = np.load(golden_dir / "region_merging.npz")
    num_base = int(golden["num_base"])
    probabilities = novel_probabilities(golden["logits"], num_base)
    of_image = [golden["image_index"] == image for image in range(golden["image_index"].max() + 1)]
    merged = np.stack([merge_image(probabilities[own], golden["areas"][own], temperature) for own in of_image])
    expected = golden[f"image_probabilities_T{temperature}"]
    assert not expected[..., :num_base].any()
    np.testing.assert_allclose(merged, expected[..., num_base:], atol=1e-5)
    np.testing.assert_array_equal(merged.argmax(-1) + num_base, golden[f"image_class_T{temperature}"])


def test_novel_probabilities_are_the_renormalised_softmax():
    logits = np.random.default_rng(0).normal(size=(4, 3, 7))
    full = np.exp(logits / 0.1)[..., 3:]
    expected = full / full.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(novel_probabilities(logits, 3), expected, atol=1e-5, rtol=1e-4)


def test_novel_probabilities_survive_certain_base_logits():
    np.testing.assert_allclose(novel_probabilities(np.array([1e4, 0.0, 0.0]), 1), [0.5, 0.5])


@pytest.mark.parametrize("temperature", [20, 50, 1e4])
def test_equals_brute_force(regions, temperature):
    merged = merge_image(*regions, temperature)  # type: ignore[call-arg]
    np.testing.assert_allclose(merged, brute_force(*regions, temperature), atol=1e-6, rtol=1e-4)  # type: ignore[call-arg]
    np.testing.assert_allclose(merged.sum(axis=-1), np.ones(2), atol=1e-6)


def test_order_of_regions_does_not_matter(regions):
    order = np.random.default_rng(1).permutation(12)
    shuffled = merge_image(*(part[order] for part in regions), 50)  # type: ignore[call-arg]
    np.testing.assert_allclose(shuffled, merge_image(*regions, 50), atol=1e-6)  # type: ignore[call-arg]


def test_huge_areas_do_not_overflow():
    np.testing.assert_array_equal(merge_image(np.eye(2), np.array([1e12, 1.0]), 0.5), [1.0, 0.0])


def test_weights_by_hand():
    # roots 10 and 20 over 10: exp(1 - 2) to exp(0)
    weights = region_weights(np.array([100, 400]), 10)
    assert weights == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    assert region_weights(np.array([0]), 10).tolist() == [1.0]


def test_no_region_has_no_weight_and_merges_to_nothing():
    assert region_weights(np.array([]), 10).shape == (0,)
    np.testing.assert_array_equal(merge_image(np.zeros((0, 3)), np.array([]), 10), np.zeros(3))


def test_the_relative_temperature_is_an_eighth_of_the_root_of_the_area():
    assert (merging_temperature_of((300, 300)), merging_temperature_of((100, 400))) == (37.5, 25.0)


@pytest.mark.parametrize("num_base_classes", [-1, 5, 6])
def test_bad_number_of_base_classes_raises(num_base_classes):
    with pytest.raises(ValueError, match="`num_base_classes` must be from 0 to C - 1"):
        novel_probabilities(np.zeros((2, 5)), num_base_classes)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`areas` must have shape \(R,\)"):
        region_weights(np.zeros((2, 1)), 1)
    with pytest.raises(ValueError, match=r"`areas` must have shape .* not be negative"):
        region_weights(np.array([-1]), 1)
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        region_weights(np.array([1]), 0)
    with pytest.raises(ValueError, match=r"`probabilities` must have shape \(R, ...\) for 2 areas, got \(1, 3\)"):
        merge_image(np.ones((1, 3)), np.array([1, 1]), 1)


def test_regions_count_by_score_mask_and_confidence():
    scores, areas = np.array([0.8, 0.4, 0.39, 0.8]), np.array([50, 9, 9, 0])
    confidence = np.array([0.9, 0.5, 0.9, 0.9])
    assert counting_regions(scores, areas, confidence, 0.5, 0.5).tolist() == [True, True, False, False]
    assert counting_regions(scores, areas, confidence, 0.0, 0.6).tolist() == [True, False, True, False]
    nothing = np.zeros(0)
    assert counting_regions(nothing, nothing, nothing).tolist() == []
    with pytest.raises(ValueError, match=r"must have one shape \(R,\), got .*\(3,\)"):
        counting_regions(scores, areas[:3], confidence)


def test_the_class_of_the_image_comes_first_and_each_once():
    assert classes_of_image(2, [1, 2, 1], NAMES, 0) == [2, 1]
    assert classes_of_image(1, [2, 1], NAMES, 0) == [1, 2]
    assert classes_of_image(2, [], NAMES, 0) == [2]


def test_normal_is_listed_only_as_the_class_of_the_image():
    assert classes_of_image(1, [1, 0, 0], NAMES, 0) == [1]
    assert classes_of_image(0, [0, 2], NAMES, 0) == [0, 2]
    assert classes_of_image(1, [1, 0, 0], NAMES, None) == [1, 0]
    # A class that has the name of normal is normal.
    assert classes_of_image(1, [3, 2], ["b", "a", "b", "normal"], 2) == [1, 3]


def test_slots_of_one_name_are_one_class():
    assert classes_of_image(3, [1, 3, 2], NAMES, 0) == [1, 2]
    assert classes_of_image(2, [3, 1], NAMES, 0) == [2, 1]


def predict(probabilities, areas, merging=MERGING, scores=None, unknown=None):
    count = len(areas)
    boxes = np.tile([0.0, 0.0, 4.5, 4.0], (count, 1))
    scores = np.full(count, 0.5) if scores is None else np.array(scores)
    rows = np.array(probabilities, np.float32).reshape(count, len(merging.class_names))
    unknown = None if unknown is None else np.array(unknown)
    return merging.predict(rows, boxes, np.array(areas), scores, (32, 48), unknown, "a.png")


def test_regions_weigh_by_the_root_of_their_area():
    # roots 10 and 20 over 10: weights 1 : e
    result = predict([[0, 1, 0, 0], [0, 0, 1, 0]], [100, 400])
    assert result.probabilities == pytest.approx([0, 1 / (1 + np.e), np.e / (1 + np.e), 0])
    assert (result.image, result.size_hw) == ("a.png", (32, 48))
    assert (result.class_id, result.class_name) == (2, "bright")
    assert result.confidence == pytest.approx(np.e / (1 + np.e))
    assert [region.class_name for region in result.regions] == ["dark", "bright"]
    assert result.regions[0].box_xyxy == (0.0, 0.0, 4.5, 4.0)
    assert [region.area for region in result.regions] == [100, 400]


def test_without_a_temperature_it_follows_the_size_of_the_image():
    result = predict([[0, 1, 0, 0], [0, 0, 1, 0]], [0, 64], replace(MERGING, temperature=None))
    ratio = np.exp(8 / (np.sqrt(32 * 48) / 8))
    assert result.confidence == pytest.approx(ratio / (1 + ratio))


def test_an_image_has_the_classes_of_regions_that_count():
    result = predict([DARK, BRIGHT], [100, 400])
    assert (result.class_name, result.classes) == ("bright", ("bright", "dark"))
    weak = predict([DARK, BRIGHT, BRIGHT], [100, 400, 400], scores=[0.34, 0.5, 0.5])  # below 0.7 of the highest
    assert weak.classes == ("bright",)
    assert predict([DARK, BRIGHT], [0, 400]).classes == ("bright",)
    # Slots of one name are one class; normal is named only as the class of the image.
    assert predict([DARK, UNSURE], [400, 100]).classes == ("dark",)
    assert predict([DARK, NORMAL], [400, 100]).classes == ("dark",)
    assert predict([DARK, NORMAL], [100, 400]).classes == ("normal", "dark")


def test_slots_of_one_name_stand_together():
    result = predict([[0, 0.3, 0.4, 0.3]], [9])
    assert (result.class_id, result.class_name) == (1, "dark")
    assert result.confidence == pytest.approx(0.6)
    assert result.regions[0].confidence == pytest.approx(0.6)


RENAMED = replace(MERGING, class_names=("good part", "dark", "bright", "dark"))
SHARED = replace(MERGING, class_names=("good part", "dark", "good part", "dark"))
WITHOUT = RegionMerging(("normal", "dark", "bright", "dark"), None)


@pytest.mark.parametrize(
    ("probabilities", "area", "unknown", "merging", "is_normal"),
    [
        (DARK, 9, False, MERGING, False),
        (NORMAL, 9, False, MERGING, True),
        (NORMAL, 9, False, RENAMED, True),  # a slot, never a word
        (NORMAL, 9, False, WITHOUT, False),
        (BRIGHT, 9, False, SHARED, True),
        (NORMAL, 9, True, MERGING, False),  # what is unknown is not normal because its least bad class is
        (DARK, 0, False, MERGING, True),  # nothing was found
        (DARK, 0, False, WITHOUT, True),
    ],
)
def test_what_makes_an_image_normal(probabilities, area, unknown, merging, is_normal):
    assert predict([probabilities], [area], merging, unknown=[unknown]).is_normal is is_normal


@pytest.mark.parametrize(
    ("flags", "areas", "expected"),
    [
        ([True], [9], True),
        ([False], [9], False),
        ([True, False], [100, 100], False),
        ([True, False], [400, 100], True),
        ([False, True], [400, 100], False),
        ([True, False, True], [100, 121, 100], True),
    ],
)
def test_an_image_is_unknown_where_most_of_its_weight_is(flags, areas, expected):
    result = predict([DARK] * len(areas), areas, unknown=flags)
    assert result.is_unknown is expected
    assert [region.is_unknown for region in result.regions] == flags


def test_the_score_is_that_of_the_highest_region():
    assert predict([DARK, BRIGHT], [9, 9], scores=[0.25, 0.75]).score == 0.75


def test_an_image_without_region_is_normal():
    result = predict([], [], RENAMED)
    assert (result.class_id, result.class_name, result.confidence) == (0, "good part", 1.0)
    assert (result.is_normal, result.is_unknown, result.classes) == (True, False, ("good part",))
    assert (result.regions, result.score, result.probabilities) == ((), 0.0, (1.0, 0.0, 0.0, 0.0))
    other = predict([], [], WITHOUT)
    assert (other.class_id, other.class_name, other.confidence, other.classes) == (None, "", 0.0, ())
    assert (other.is_normal, other.is_unknown, other.regions) == (True, False, ())


def test_what_the_user_says_of_an_image_counts():
    nothing = np.zeros((0, 2)), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), (8, 8)
    result = RegionMerging(("good part", "dent"), 0).predict(*nothing, said=1)
    assert (result.class_id, result.class_name, result.confidence, result.classes) == (1, "dent", 1.0, ("dent",))
    assert not result.is_normal
    whole = np.array([[0.9, 0.1]]), np.zeros((1, 4)), np.zeros(1, int), np.zeros(1), (8, 8), np.ones(1, bool)
    result = RegionMerging(("good part", "dent"), 0).predict(*whole, said=1)
    assert (result.class_name, result.is_normal, result.is_unknown) == ("dent", False, False)
    assert RegionMerging(("good part", "dent"), 0).predict(*nothing, said=0).is_normal


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="for 2 areas"):
        MERGING.predict(np.ones((1, 4)), np.zeros((2, 4)), np.ones(2), np.ones(2), (8, 8))
    with pytest.raises(ValueError, match="`class_names` must name the K slots"):
        MERGING.predict(np.ones((1, 3)), np.zeros((1, 4)), np.ones(1), np.ones(1), (8, 8))


def test_example_of_choose_classes():
    slots, scores = choose_classes(np.array([[0.375, 0.25, 0.375]]), ["dent", "scratch", "scratch"])
    assert (slots.tolist(), scores.tolist()) == ([2], [0.625])


def test_example_of_region_merging():
    merging = RegionMerging(("normal", "dent"), normal_slot=0)
    boxes = np.array([[0, 0, 8, 8]])
    found = merging.predict(np.array([[0.25, 0.75]]), boxes, np.array([9]), np.array([0.8]), (64, 64))
    assert (found.class_name, found.confidence, found.is_normal) == ("dent", 0.75, False)


def test_example_of_novel_probabilities():
    np.testing.assert_array_equal(
        novel_probabilities(np.array([9.0, 0.1, 0.1]), num_base_classes=1), np.array([0.5, 0.5], dtype=np.float32)
    )


def test_example_of_classes_of_image():
    assert classes_of_image(1, [2, 0, 1], ["normal", "class_1", "class_2"], normal_slot=0) == [1, 2]
