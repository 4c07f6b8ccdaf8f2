# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from sklearn.cluster import KMeans

from anomalib_ncd.metrics.facts import (
    FACTS,
    detector_separation,
    image_cells,
    map_cells,
    own_image_share,
    pairwise_agreement,
    peak_height,
    resampled_clusterings,
    same_place_share,
    tell_facts,
)
from anomalib_ncd.synthetic.plate_images import make_image, simulate_anomaly_map

KINDS = (("scratch",), ("stain",), ("dent",), ())


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_advice_is_given_where_a_number_is_off(fact):
    fine, off = (1.0, 0.0) if not fact.low_is_fine else (0.0, 1.0)
    assert tell_facts({fact.name: fine})[fact.name]["advice"] == ""
    told = tell_facts({fact.name: off})[fact.name]
    assert told == {"value": off, "text": fact.sentence.format(value=f"{off:.0%}"), "advice": fact.advice}
    assert fact.advice.endswith((".", "?"))


def test_what_is_not_known_is_left_out():
    assert tell_facts({"own_image": float("nan")}) == {}
    assert list(tell_facts({"same_place": 0.1, "images_with_region": 0.9})) == ["images_with_region", "same_place"]


def k_means(num_clusters):
    return lambda rows: KMeans(min(num_clusters, len(rows)), n_init=3, random_state=0).fit_predict(rows)


def test_pairs_are_compared_over_the_samples_that_both_have():
    # ARI of 0011 with 0101 is -0.5; the other two pairs are equal over what they share.
    partitions = np.array([[0, 0, 1, 1, -1], [0, 1, 0, 1, 0], [7, 7, 3, -1, 5]])
    pairs = [-0.5, 1.0, None]
    shared = np.array([[0, 0, 1], [0, 1, 0]])
    assert pairwise_agreement(partitions[:2]) == pytest.approx(pairs[0])
    assert pairwise_agreement(partitions[[0, 2]]) == pairs[1]
    third = pairwise_agreement(partitions[1:])
    assert pairwise_agreement(partitions) == pytest.approx((pairs[0] + pairs[1] + third) / 3)
    assert pairwise_agreement(shared) == pytest.approx(-0.5)


def test_classes_have_no_numbers():
    assert pairwise_agreement(np.array([[0, 0, 1, 2], [5, 5, 0, 1]])) == 1


def test_nothing_to_compare_is_not_a_number():
    assert np.isnan(pairwise_agreement(np.array([[0, 1, 2]])))
    assert np.isnan(pairwise_agreement(np.array([[0, -1], [-1, 0]])))


def test_resamples_find_clusters_that_are_there():
    features = np.repeat([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], 10, axis=0)
    features += np.random.default_rng(0).normal(0, 0.01, features.shape)
    found = resampled_clusterings(features, k_means(3), num_resamples=4, share=0.8)
    assert found.shape == (4, 30)
    assert ((found >= 0).sum(axis=1) == 24).all()
    assert not (found[0] == found[1]).all()
    assert pairwise_agreement(found) == 1
    kinds = np.repeat([0, 1, 2], 10)
    assert pairwise_agreement(np.stack([found[0], kinds])) == 1
    np.testing.assert_array_equal(found, resampled_clusterings(features, k_means(3), num_resamples=4, share=0.8))


def test_resamples_of_noise_disagree():
    noise = np.random.default_rng(0).normal(size=(120, 20))
    assert pairwise_agreement(resampled_clusterings(noise, k_means(6), num_resamples=4)) < 0.4


def test_few_regions_are_no_error():
    assert resampled_clusterings(np.zeros((0, 3)), k_means(2)).shape == (5, 0)
    assert resampled_clusterings(np.eye(3), k_means(9), num_resamples=1).max() == 1
    high_first = resampled_clusterings(np.array([[1.0], [0.0]]), lambda rows: rows[:, 0] < 1, num_resamples=1, share=1)
    assert high_first.tolist() == [[0, 1]]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`partitions` must have shape \(P, N\), got \(3,\)"):
        pairwise_agreement(np.zeros(3, int))
    with pytest.raises(ValueError, match=r"`features` must have shape \(N, D\)"):
        resampled_clusterings(np.zeros(3), k_means(2))
    with pytest.raises(ValueError, match=r"`share` must be in \(0, 1\], got 0"):
        resampled_clusterings(np.zeros((3, 2)), k_means(2), share=0)


@pytest.fixture(scope="module")
def plates():
    """Cells of 24 drawn plates, and their maps."""
    rng = np.random.default_rng(0)
    cells, maps = [], []
    for kinds in KINDS * 6:
        image, masks = make_image(kinds, rng)
        cells.append(image_cells(image))
        maps.append(simulate_anomaly_map(np.any([np.zeros(image.shape[:2], bool), *masks.values()], axis=0), rng))
    return np.stack(cells), maps


def cells_of(maps):
    return np.stack([map_cells(anomaly_map) for anomaly_map in maps])


def test_maps_that_follow_their_images_are_told_from_others(plates):
    images, maps = plates
    own = cells_of(maps)
    noise = np.random.default_rng(1).random(own.shape)
    assert own_image_share(images, own) > 0.85
    assert own_image_share(images, np.roll(own, 1, axis=0)) < 0.6
    assert own_image_share(images, noise) < 0.6
    assert own_image_share(images, -own) < 0.6
    assert own_image_share(images, np.zeros_like(own)) == 0.5
    assert np.isnan(own_image_share(images[:9], own[:9]))
    assert own_image_share(images[:10], own[:10]) > 0.65


def test_maps_of_any_size_have_cells():
    small = np.arange(196).reshape(14, 14)
    assert map_cells(small).shape == map_cells(np.zeros((100, 300))).shape == (24, 24)
    assert map_cells(small).argmax() == 24 * 24 - 1


def test_places_that_are_the_same_are_seen():
    rng = np.random.default_rng(0)
    apart, one = rng.random((8, 24, 24)), np.tile(rng.random((24, 24)), (5, 1, 1))
    assert same_place_share(one) == same_place_share(one, one[:2]) == 1
    assert same_place_share(apart) < 0.05
    assert same_place_share(apart, one) < 0.1
    assert same_place_share(np.ones((3, 24, 24))) == 0
    assert np.isnan(same_place_share(apart[:1]))


def test_inverted_and_constant_maps_have_no_peak(plates):
    maps = plates[1]
    assert peak_height(maps) > 0.6
    assert peak_height([-anomaly_map for anomaly_map in maps]) < 0.4
    assert peak_height([np.ones((4, 4))] * 3) == 0
    assert peak_height([np.array([[0, 0, 0, 1]]), np.array([[0, 0, 0, 5]])]) == 1
    assert np.isnan(peak_height([]))


def test_separation_is_an_auroc():
    assert detector_separation([3, 4], [1, 2]) == 1
    assert detector_separation([1], [1]) == 0.5
    assert detector_separation([3, 5], [1, 4]) == 0.75
    assert np.isnan(detector_separation([1], []))


def test_example_of_pairwise_agreement():
    assert pairwise_agreement(np.array([[0, 0, 1, 1], [5, 5, 3, 3], [7, 7, 2, -1]])) == 1.0
