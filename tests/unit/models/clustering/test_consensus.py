# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from anomalib_ncd.models.clustering.consensus import consensus_clusters


def blobs(spread, sizes, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return np.eye(len(sizes) + 3)[truth] + rng.normal(0, spread, (len(truth), len(sizes) + 3)), truth


def test_clear_groups_of_any_size_are_found():
    rows, truth = blobs(0.05, (40, 9, 4))
    assert adjusted_rand_score(truth, consensus_clusters(rows, 3)) == 1


def test_noisy_groups_are_found_better_than_by_one_clustering():
    scores = []
    for seed in range(8):
        rows, truth = blobs(0.38, (60, 30, 12, 6), seed)
        ward = AgglomerativeClustering(4, linkage="ward").fit_predict(rows)
        consensus = consensus_clusters(rows, 4, seed)
        scores.append([adjusted_rand_score(truth, found) for found in (ward, consensus)])
    ward_mean, consensus_mean = np.mean(scores, axis=0)
    assert consensus_mean > ward_mean + 0.03


def test_the_seed_decides():
    rows, _ = blobs(0.6, (20, 20, 20))
    first, again = (consensus_clusters(rows, 3, seed=1, num_clusterings=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    others = [consensus_clusters(rows, 3, seed=seed, num_clusterings=3) for seed in range(2, 6)]
    assert any(adjusted_rand_score(first, other) < 1 for other in others)


@pytest.mark.parametrize("count", [1, 2, 5, 11, 12, 30])
def test_there_are_as_many_clusters_as_asked_for(count):
    rows, _ = blobs(0.3, (5, 4, 3))
    labels = consensus_clusters(rows, count, num_clusterings=10)
    assert labels.dtype == np.int64
    assert set(labels.tolist()) == set(range(min(count, 12)))


def test_copies_stay_together():
    rows = np.repeat(np.eye(3), (7, 2, 1), axis=0)
    labels = consensus_clusters(rows, 3)
    assert adjusted_rand_score([0] * 7 + [1] * 2 + [2], labels) == 1


def test_no_rows():
    assert consensus_clusters(np.zeros((0, 4)), 3).shape == (0,)
