# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import base64

import numpy as np
import pytest

from anomalib_ncd.results.run_results import digest_of_classes
from anomalib_ncd.visualization.report.correcting import LABEL_FIRST, correcting_data, likeness


@pytest.fixture
def results(results_of):
    """Two classes of ten regions each."""
    rng, of_class = np.random.default_rng(0), np.repeat([0, 1], 10)
    probabilities = np.where(np.eye(2)[of_class] > 0, 0.8, 0.2)
    return results_of(probabilities, range(20), features=np.eye(6)[of_class] + rng.normal(0, 0.1, (20, 6)))


@pytest.fixture
def classes(results):
    """Class of each region on the page: its slot."""
    return results.batch.region_class_probabilities.argmax(dim=1).numpy()


def test_what_the_page_needs(results, classes):
    count = len(classes)
    data = correcting_data(results, results.slot_names, np.arange(count), classes, None)
    assert len(data["boxes"]) == count
    assert len(base64.b64decode(data["likeness"])) == count * data["dimensions"]
    assert 0 < len(data["first"]) <= LABEL_FIRST
    assert data["corrected"] == []
    assert data["tree"]["count"] == len(np.unique(classes))
    assert data["of"] == digest_of_classes(results)


def test_corrected_regions_are_known_by_their_place_and_not_asked_of(results, classes):
    shown = np.arange(1, len(classes))
    data = correcting_data(results, results.slot_names, shown, classes[shown], None, corrected=[0, 2])
    assert data["corrected"] == [1]
    assert 1 not in data["first"]
    assert data["tree"] is None  # of a sample there is none


def test_alike_regions_have_alike_rows():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 20)
    rows = likeness(np.eye(40)[groups] * 5 + rng.normal(0, 0.1, (60, 40))).astype(float)
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    assert np.abs(rows).max() == 127


@pytest.mark.parametrize("features", [np.zeros((0, 5)), np.ones((1, 5))])
def test_few_regions(features):
    assert (likeness(features) == 0).all()
