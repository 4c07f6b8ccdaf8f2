# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.deploy.detectors import FunctionDetector
from anomalib_ncd.deploy.line.map_folder import MapFolder
from anomalib_ncd.deploy.packing.check_detector import check_detector
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files


@pytest.fixture
def images_and_maps(tiny_run):
    images = list(find_files(tiny_run.images, IMAGE_SUFFIXES))
    maps = MapFolder(tiny_run.anomaly_maps, tiny_run.images)
    return images, [maps.find(image) for image in images]


def test_the_run_s_own_maps_agree(images_and_maps, tiny_run):
    images, paths = images_and_maps
    own = MapFolder(tiny_run.anomaly_maps, tiny_run.images)
    assert check_detector(own, images, paths, (0.1, 0.9)) == 0


def test_a_map_of_another_size_is_compared_at_the_run_s(images_and_maps):
    images, paths = images_and_maps

    class Coarse:
        def detect(self, inputs, files):
            return [np.load(paths[images.index(file)])[::2, ::2] for file in files]

    assert 0 < check_detector(Coarse(), images, paths, (0.1, 0.9)) < 0.1


def test_other_units_are_refused(images_and_maps):
    images, paths = images_and_maps
    normalised = FunctionDetector(lambda pixels: np.full(pixels.shape[:2], 0.5))
    with pytest.raises(ValueError, match=r"are in other units\. Was it exported with a post-processor that normalises"):
        check_detector(normalised, images, paths, (0.1, 0.9))
    with pytest.raises(ValueError, match="differ from the run's by nan"):
        check_detector(FunctionDetector(lambda p: np.full(p.shape[:2], np.nan)), images, paths, (0.1, 0.9))
