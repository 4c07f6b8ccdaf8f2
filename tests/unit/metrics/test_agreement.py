# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from sklearn.cluster import KMeans

from anomalib_ncd.metrics.agreement import pairwise_agreement, resampled_clusterings


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


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`partitions` must have shape \(P, N\), got \(3,\)"):
        pairwise_agreement(np.zeros(3, int))
    with pytest.raises(ValueError, match=r"`features` must have shape \(N, D\)"):
        resampled_clusterings(np.zeros(3), k_means(2))
    with pytest.raises(ValueError, match=r"`share` must be in \(0, 1\], got 0"):
        resampled_clusterings(np.zeros((3, 2)), k_means(2), share=0)
