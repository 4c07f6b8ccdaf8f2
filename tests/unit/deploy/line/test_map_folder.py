# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_ncd.deploy.line.map_folder import MapFolder

PIXELS = np.zeros((16, 16, 3), np.uint8)


def test_maps_are_found_by_relative_path_and_by_stem(tiny_run, tmp_path):
    maps = MapFolder(tiny_run.anomaly_maps, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    assert maps.find(image) == tiny_run.anomaly_maps / "line" / "003.npy"
    [anomaly_map] = maps.detect([PIXELS], [image])
    np.testing.assert_array_equal(anomaly_map, np.load(tiny_run.anomaly_maps / "line" / "003.npy"))
    np.save(tmp_path / "003.npy", np.ones((4, 4)))
    assert MapFolder(tmp_path, image).find(image) == tmp_path / "003.npy"


def test_missing_maps_are_named(tiny_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder of anomaly maps"):
        MapFolder(tmp_path / "nothing", tiny_run.images)
    maps = MapFolder(tmp_path, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    assert maps.find(image) is None
    with pytest.raises(FileNotFoundError, match=r"003\.png has no anomaly map in"):
        maps.detect([PIXELS], [image])
    with pytest.raises(ValueError, match="A folder of maps needs images with a path"):
        maps.detect([PIXELS])


def test_maps_that_come_later_are_found_after_a_new_look(tiny_run, tmp_path):
    maps = MapFolder(tmp_path, tiny_run.images)
    image = tiny_run.images / "line" / "003.png"
    (tmp_path / "line").mkdir()
    np.save(tmp_path / "line" / "003.npy", np.ones((4, 4)))
    assert maps.find(image) is None
    maps.refresh()
    assert maps.find(image) == tmp_path / "line" / "003.npy"


def test_twins_of_a_name_are_refused(tiny_run, tmp_path):
    np.save(tmp_path / "003.npy", np.ones((4, 4)))
    maps = MapFolder(tmp_path, tiny_run.images)
    for kind in ("line", "square"):
        with pytest.raises(ValueError, match="Several images are called '003'"):
            maps.find(tiny_run.images / kind / "003.png")


def test_maps_of_two_kinds_are_refused(tiny_run, tmp_path):
    (tmp_path / "line").mkdir()
    for name, dtype in (("001", np.float32), ("002", np.uint8)):
        np.save(tmp_path / "line" / f"{name}.npy", np.ones((4, 4), dtype))
    maps = MapFolder(tmp_path, tiny_run.images)
    images = [tiny_run.images / "line" / f"{name}.png" for name in ("001", "002")]
    maps.detect([PIXELS], images[:1])
    with pytest.raises(ValueError, match=r"002\.npy holds uint8, but .*001\.npy float"):
        maps.detect([PIXELS], images[1:])
    maps.expect("uint8")
    with pytest.raises(ValueError, match=r"001\.npy holds float, but the run's uint8"):
        maps.detect([PIXELS], images[:1])
