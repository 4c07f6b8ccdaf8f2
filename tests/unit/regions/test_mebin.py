# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anomalib_ncd.regions.mebin import (
    ThresholdSweep,
    binarize,
    binarize_batch,
    build_sweep,
    fit_score_range,
    normalize_anomaly_map,
    select_interval,
    sweep_thresholds,
)

RANGE = (0.0, 1.0)

OPTIONS = {
    "sample_rate": st.sampled_from([1, 3, 4, 7, 50]),
    "min_interval_len": st.integers(1, 9),
    "erosion_size": st.sampled_from([0, 1, 2, 3, 6]),
}


def literal_erode(mask, size):
    """Brute force: all pixels of the window are on; an even window reaches one pixel further up and left."""
    if size == 0:
        return mask
    before, after = size // 2, size - 1 - size // 2
    padded = np.pad(mask, ((before, after), (before, after)), constant_values=True)
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size)).all(axis=(2, 3))


def literal_counts(anomaly_map, score_range, sample_rate, erosion_size):
    low, high = score_range
    values = anomaly_map.astype(np.float64)
    normalised = np.where(values < low, 0, (values - low) / (high - low) * 255)
    masks = (literal_erode(normalised > t, erosion_size) for t in range(255, 0, -sample_rate))
    return [ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks]


def literal_interval(counts, min_interval_len):
    runs, start = [], 0
    for count, group in itertools.groupby(counts):
        length = len(list(group))
        if count and length >= min_interval_len:
            runs.append((count, length, start + length - 1))
        start += length
    if not runs:
        return None
    longest = max(length for _, length, _ in runs)
    # The first stable run of each count decides between counts; the last of the longest between runs of one count.
    order = list(dict.fromkeys(count for count, _, _ in runs))
    winner = next(c for c in order if any(count == c and length == longest for count, length, _ in runs))
    return [(end, count) for count, length, end in runs if count == winner and length == longest][-1]


def literal_binarize(anomaly_map, score_range, sample_rate, min_interval_len, erosion_size):
    interval = literal_interval(
        literal_counts(anomaly_map, score_range, sample_rate, erosion_size),
        min_interval_len,
    )
    low, high = score_range
    if interval is None:
        return np.zeros(anomaly_map.shape, dtype=bool), high, 0
    end, count = interval
    threshold = (255 - sample_rate * end) * (high - low) / 255 + low
    if anomaly_map.dtype.kind in "ui":
        threshold = int(threshold)
    return literal_erode(anomaly_map.astype(np.float64) > threshold, erosion_size), threshold, count


@st.composite
def pairs_of_maps(draw, dtype):
    """Two maps of one shape: noise, smooth noise, or blocks that survive an erosion."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    kind = draw(st.sampled_from(["noise", "smooth", "blocks"]))
    maps = rng.random((2, height, width))
    if kind == "smooth":
        maps = ndimage.gaussian_filter(maps, (0, 2, 2))
    elif kind == "blocks":
        side = draw(st.integers(2, 9))
        coarse = rng.random((2, height // side + 1, width // side + 1)) ** 2
        maps = np.kron(coarse, np.ones((1, side, side)))[:, :height, :width]
    if np.issubdtype(dtype, np.integer):
        return (maps * draw(st.sampled_from([9, 80, 255]))).astype(dtype)
    return (maps * draw(st.sampled_from([1, 0.01, 300])) - draw(st.sampled_from([0, 0.5, 100]))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64])
def test_equals_literal_sweep(dtype):
    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(maps=pairs_of_maps(dtype), **OPTIONS)
    def check(maps, sample_rate, min_interval_len, erosion_size):
        score_range = fit_score_range(maps)
        if score_range[0] == score_range[1]:
            return
        for anomaly_map in maps:
            mask, threshold, count = binarize(anomaly_map, score_range, sample_rate, min_interval_len, erosion_size)
            expected = literal_binarize(anomaly_map, score_range, sample_rate, min_interval_len, erosion_size)
            np.testing.assert_array_equal(mask, expected[0])
            assert (threshold, count) == expected[1:]
            np.testing.assert_array_equal(
                build_sweep(anomaly_map, score_range, sample_rate, erosion_size).count_all(),
                literal_counts(anomaly_map, score_range, sample_rate, erosion_size),
            )

    check()


@settings(deadline=None, max_examples=200, derandomize=True)
@given(counts=st.lists(st.integers(0, 3), max_size=40), min_interval_len=st.integers(1, 5))
def test_select_interval_equals_literal(counts, min_interval_len):
    assert select_interval(np.array(counts, dtype=int), min_interval_len) == literal_interval(counts, min_interval_len)


@pytest.mark.parametrize("erosion_size", [6, 0])
def test_equals_golden(golden_maps, erosion_size):
    golden, score_range = golden_maps.mebin[erosion_size], golden_maps.score_range
    assert fit_score_range(iter(golden_maps.maps)) == score_range  # the sample holds the lowest and the highest peak
    results = [binarize(anomaly_map, score_range, erosion_size=erosion_size) for anomaly_map in golden_maps.maps]
    counts = [
        build_sweep(anomaly_map, score_range, erosion_size=erosion_size).count_all() for anomaly_map in golden_maps.maps
    ]
    np.testing.assert_array_equal([result.threshold for result in results], golden["thresholds"])
    np.testing.assert_array_equal([result.num_components for result in results], golden["est_anomaly_num"])
    np.testing.assert_array_equal(counts, golden["component_counts"])
    np.testing.assert_array_equal(np.packbits([result.mask for result in results], axis=-1), golden["masks"])


def test_score_range_is_lowest_and_highest_peak():
    maps = (np.full((2, 2), peak, dtype=np.uint8) for peak in (5, 3, 9))
    assert fit_score_range(maps) == (3.0, 9.0)


def test_score_range_without_width_falls_back_to_lowest_value():
    assert fit_score_range([np.array([[2.0, 8.0]]), np.array([[1.0, 8.0]])]) == (1.0, 8.0)
    assert fit_score_range([np.full((2, 2), 4)]) == (4.0, 4.0)


def test_constant_map_has_empty_mask():
    anomaly_map = np.full((8, 8), 4.0)
    mask, threshold, count = binarize(anomaly_map, fit_score_range([anomaly_map]))
    assert (mask.any(), threshold, count) == (False, 4.0, 0)


def test_normalize_clips_both_ends():
    normalised = normalize_anomaly_map(np.array([[0, 10, 15, 20, 99]], dtype=np.uint8), (10, 20))
    np.testing.assert_array_equal(normalised, [[0, 0, 127.5, 255, 255]])
    assert normalised.dtype == np.float64


def test_two_blobs_by_hand():
    anomaly_map = np.zeros((40, 40), dtype=np.uint8)
    anomaly_map[2:12, 2:12] = 200
    anomaly_map[20:32, 20:34] = 255
    mask, threshold, count = binarize(anomaly_map, (0, 255))
    # Thresholds 251 to 203 see one blob, those from 199 down to 3 see two.
    assert (threshold, count) == (3.0, 2)
    assert mask.sum() == 5 * 5 + 7 * 9
    assert mask[5:10, 5:10].all()
    assert mask[23:30, 23:32].all()


def test_threshold_is_not_rounded_to_the_precision_of_the_map():
    # The lowest threshold, rounded to half precision, is the value of the right half; exactly, it lies below.
    for high in (1.0, 1.25, 1.5, 1.75, 3.0, 5.0):
        value = np.float16(3 * high / 255)
        anomaly_map = np.full((8, 8), value, dtype=np.float16)
        anomaly_map[:, :4] = high
        mask, threshold, count = binarize(anomaly_map, (0, high), erosion_size=0)
        assert (threshold, count) == (3 * high / 255, 1)
        assert mask[:, 4:].all() == (float(value) > threshold)


def test_longer_run_of_fewer_components_wins():
    counts = np.array([0, 2, 2, 2, 2, 1, 1, 1, 1, 1, 3, 3, 3, 3])
    assert select_interval(counts) == (9, 1)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 1, 1, 1, 2, 2, 2, 2], (3, 1)),
        ([1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1], (11, 1)),
        ([2, 2, 2, 2, 1, 1, 1, 1], (3, 2)),
        ([1, 1, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1], (13, 1)),
        ([0, 0, 0, 0, 0, 1, 1, 1], None),
        ([], None),
    ],
)
def test_select_interval_ties(counts, expected):
    assert select_interval(np.array(counts, dtype=int)) == expected


def test_result_is_independent_of_the_other_maps():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 256, (5, 48, 48), dtype=np.uint8)
    maps = np.stack([cv2.GaussianBlur(anomaly_map, (0, 0), 4) for anomaly_map in maps])
    score_range = fit_score_range(maps)
    for num_threads in (None, 1, 3):
        for order in (np.arange(5), np.array([3, 1, 4, 0, 2])):
            batch = binarize_batch(maps[order], score_range, num_threads=num_threads)
            for result, index in zip(batch, order, strict=True):
                alone = binarize(maps[index], score_range)
                np.testing.assert_array_equal(result.mask, alone.mask)
                assert result[1:] == alone[1:]
    assert binarize_batch(maps[:0], score_range) == []


def test_views_and_new_maps_above_the_range():
    rng = np.random.default_rng(1)
    anomaly_map = ndimage.gaussian_filter(rng.random((60, 60)), 4)
    score_range = (float(anomaly_map.mean()), float(np.quantile(anomaly_map, 0.95)))
    clipped = np.minimum(anomaly_map, score_range[1])
    for view in (anomaly_map, anomaly_map.T, anomaly_map[::-1, ::2]):
        limit = np.minimum(view, score_range[1])
        np.testing.assert_array_equal(binarize(view, score_range).mask, binarize(limit.copy(), score_range).mask)
    np.testing.assert_array_equal(
        build_sweep(anomaly_map, score_range).count_all(), build_sweep(clipped, score_range).count_all()
    )


@pytest.mark.parametrize(
    ("anomaly_map", "message"),
    [
        (np.zeros((1, 4, 4)), r"`anomaly_map` must have shape \(H, W\)"),
        (np.zeros((0, 4)), r"not be empty"),
        (np.zeros((4, 4), dtype=bool), r"integer or float type, got bool"),
        (np.array([[0.0, np.nan]]), r"must be finite"),
        (np.array([[0.0, np.inf]]), r"must be finite"),
        (np.array([[0.0, -np.inf]]), r"must be finite"),
    ],
)
def test_bad_maps_raise(anomaly_map, message):
    for function in (binarize, normalize_anomaly_map):
        with pytest.raises(ValueError, match=message):
            function(anomaly_map, RANGE)


def test_fit_names_the_bad_map():
    good = np.ones((4, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=r"`maps\[1\]` must be finite"):
        fit_score_range([good, good * np.nan])
    with pytest.raises(ValueError, match=r"`maps\[2\]` must have shape \(H, W\)"):
        fit_score_range([good, good, good[None]])
    with pytest.raises(ValueError, match="must hold at least one"):
        fit_score_range([])


@pytest.mark.parametrize("score_range", [(1, 0), (0, np.inf), (np.nan, 1)])
def test_bad_ranges_raise(score_range):
    with pytest.raises(ValueError, match="`score_range` must be finite and ascending"):
        binarize(np.zeros((4, 4)), score_range)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "`sample_rate` must be a whole number from 1 to 255, got 0"),
        ({"sample_rate": 2.5}, "`sample_rate` must be"),
        ({"min_interval_len": 0}, "`min_interval_len` must be a whole number, 1 or more"),
        ({"erosion_size": -1}, "`erosion_size` must be a whole number, 0 or more"),
    ],
)
def test_bad_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        binarize(np.zeros((4, 4)), RANGE, **options)


def test_bad_batches_and_counts_raise():
    with pytest.raises(ValueError, match=r"`anomaly_maps` must have shape \(B, H, W\)"):
        binarize_batch(np.zeros((4, 4)), RANGE)
    with pytest.raises(ValueError, match="`num_threads` must be"):
        binarize_batch(np.zeros((1, 4, 4)), RANGE, num_threads=0)
    with pytest.raises(ValueError, match=r"`counts` must have shape \(K,\)"):
        select_interval(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="`min_interval_len` must be"):
        select_interval(np.zeros(2), 0)


def test_example_of_fit_score_range():
    assert fit_score_range([np.array([[0, 7]]), np.array([[1, 3]])]) == (3.0, 7.0)
    assert fit_score_range([np.array([[1, 7]])]) == (1.0, 7.0)


def test_example_of_binarize():
    blob = np.zeros((16, 16))
    blob[2:10, 2:10] = 1
    mask, threshold, num_components = binarize(blob, (0, 1))
    assert (int(mask.sum()), round(threshold, 3), num_components) == (9, 0.012, 1)


def test_thresholds_descend_to_above_zero():
    thresholds = sweep_thresholds(4)
    assert (len(thresholds), thresholds[0], thresholds[-1]) == (64, 255, 3)
    assert sweep_thresholds(51).tolist() == [255, 204, 153, 102, 51]


@pytest.mark.parametrize("sample_rate", [0, 256, 1.5])
def test_bad_sample_rate_raises(sample_rate):
    with pytest.raises(ValueError, match="`sample_rate` must be a whole number from 1 to 255"):
        sweep_thresholds(sample_rate)


@pytest.mark.parametrize("min_interval_len", [1, 3, 4, 6, 9, 200])
def test_stable_counts_miss_no_run(min_interval_len):
    rng = np.random.default_rng(min_interval_len)
    thresholds = sweep_thresholds(4)
    for sigma in (0, 1, 3):
        levels = ndimage.gaussian_filter(rng.random((40, 50)), sigma)
        levels = ((levels - levels.min()) / np.ptp(levels) * 255).astype(np.uint8)
        expected = np.array([ndimage.label(levels > t, np.ones((3, 3)))[1] for t in thresholds])
        np.testing.assert_array_equal(ThresholdSweep(levels, thresholds).count_all(), expected)
        found = ThresholdSweep(levels, thresholds).count_stable(min_interval_len)
        is_known = found != -1
        np.testing.assert_array_equal(found[is_known], expected[is_known])
        unknown_runs = "".join("x" if known else "." for known in is_known).split("x")
        assert max(map(len, unknown_runs)) < min_interval_len
        for start in range(len(expected) - min_interval_len + 1):
            window = slice(start, start + min_interval_len)
            if expected[start] > 0 and (expected[window] == expected[start]).all():
                assert is_known[window].all()


def test_empty_map_counts_nothing():
    sweep = ThresholdSweep(np.zeros((5, 5), dtype=np.uint8), sweep_thresholds(4))
    assert not sweep.count_all().any()
    assert not sweep.count_stable(4).any()


def test_example_of_select_interval():
    assert select_interval(np.array([0, 1, 1, 1, 1, 1, 2, 2, 2, 2])) == (5, 1)
