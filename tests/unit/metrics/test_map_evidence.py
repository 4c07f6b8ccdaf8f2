# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.metrics.map_evidence import (
    detector_separation,
    image_cells,
    map_cells,
    own_image_share,
    peak_height,
    same_place_share,
)
from anomalib_ncd.synthetic.plates import make_image, simulate_anomaly_map

KINDS = (("scratch",), ("stain",), ("dent",), ())


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
    assert np.isnan(peak_height([]))


def test_separation_is_an_auroc():
    assert detector_separation([3, 4], [1, 2]) == 1
    assert detector_separation([1], [1]) == 0.5
    assert np.isnan(detector_separation([1], []))
