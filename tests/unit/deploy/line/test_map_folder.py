# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.deploy.image_files import ImageInput
from anomalib_ncd.deploy.line.map_folder import MapFolder

PIXELS = np.zeros((16, 16, 3), np.uint8)


def test_maps_are_found_by_relative_path_and_by_stem(tiny_run, tmp_path):
    maps = MapFolder(tiny_run.anomaly_maps, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    assert maps.find(image) == tiny_run.anomaly_maps / "line" / "003.npy"
    [anomaly_map] = maps.detect([ImageInput(PIXELS, image)])
    np.testing.assert_array_equal(anomaly_map, np.load(tiny_run.anomaly_maps / "line" / "003.npy"))
    np.save(tmp_path / "003.npy", np.ones((4, 4)))
    assert MapFolder(tmp_path, tiny_run.images).find(image) == tmp_path / "003.npy"


def test_missing_maps_are_named(tiny_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder of anomaly maps"):
        MapFolder(tmp_path / "nothing", tiny_run.images)
    maps = MapFolder(tmp_path, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    assert maps.find(image) is None
    with pytest.raises(FileNotFoundError, match=r"003\.png has no anomaly map in"):
        maps.detect([ImageInput(PIXELS, image)])
    with pytest.raises(ValueError, match="A folder of maps needs images with a path"):
        maps.detect([ImageInput(PIXELS)])
