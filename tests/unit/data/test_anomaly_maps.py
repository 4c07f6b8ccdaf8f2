# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging

import cv2
import numpy as np
import pytest

from anomalib_ncd.data.anomaly_maps import pair_anomaly_maps, read_anomaly_map
from anomalib_ncd.data.images import ImageRecord

RAMP = np.arange(12).reshape(3, 4)


@pytest.fixture
def images(tmp_path):
    return [ImageRecord(tmp_path / f"images/{key}.jpg", key) for key in ("a/1", "b/1", "b/2")]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("m.png", np.uint8), ("m.png", np.uint16), ("m.tiff", np.float32), ("m.npy", np.float32), ("m.npy", np.float64)],
)
def test_maps_keep_their_values_and_type(tmp_path, name, dtype):
    path = tmp_path / name
    values = RAMP.astype(dtype) * (1000 if dtype == np.uint16 else 1)
    np.save(path, values) if name.endswith("npy") else cv2.imwrite(str(path), values)
    anomaly_map = read_anomaly_map(path)
    assert anomaly_map.dtype == dtype
    np.testing.assert_array_equal(anomaly_map, values)


def test_leading_axes_of_an_npy_are_dropped(tmp_path):
    np.save(tmp_path / "m.npy", RAMP[None, None].astype(np.float16))
    assert read_anomaly_map(tmp_path / "m.npy").shape == (3, 4)
    np.save(tmp_path / "m.npy", np.stack([RAMP, RAMP]).astype(np.float32))
    with pytest.raises(ValueError, match=r"m\.npy"):
        read_anomaly_map(tmp_path / "m.npy")


def test_grey_pictures_with_three_channels_are_maps_and_colours_are_not(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.repeat(RAMP[..., None].astype(np.uint8), 3, axis=2))
    np.testing.assert_array_equal(read_anomaly_map(tmp_path / "grey.png"), RAMP)
    cv2.imwrite(str(tmp_path / "jet.png"), cv2.applyColorMap(RAMP.astype(np.uint8) * 20, cv2.COLORMAP_JET))
    with pytest.raises(ValueError, match=r"jet\.png is a colour picture"):
        read_anomaly_map(tmp_path / "jet.png")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_named(tmp_path, bad):
    values = RAMP.astype(np.float32)
    values[1, 1] = bad
    np.save(tmp_path / "broken.npy", values)
    with pytest.raises(ValueError, match=r"broken\.npy.*NaN"):
        read_anomaly_map(tmp_path / "broken.npy")


def test_unreadable_maps_are_named(tmp_path):
    for name in ("m.png", "m.npy"):
        (tmp_path / name).write_text("no map")
        with pytest.raises(ValueError, match=name):
            read_anomaly_map(tmp_path / name)
    np.save(tmp_path / "ints.npy", RAMP)
    with pytest.raises(ValueError, match="int64"):
        read_anomaly_map(tmp_path / "ints.npy")


def test_maps_are_paired_by_path_not_by_order(tmp_path, images):
    maps = tmp_path / "maps"
    # Another suffix for each, and a map too many that sorts first.
    for name in ("b/2.npy", "b/1.png", "a/1.tiff", "a/0.png"):
        (maps / name).parent.mkdir(parents=True, exist_ok=True)
        (maps / name).touch()
    assert [path.name for path in pair_anomaly_maps(images, maps)] == ["1.tiff", "1.png", "2.npy"]


def test_a_map_without_image_is_left_out_with_a_warning(tmp_path, images, caplog):
    maps = tmp_path / "maps"
    for key in ("a/1", "b/1", "b/2", "c/9"):
        (maps / key).parent.mkdir(parents=True, exist_ok=True)
        (maps / f"{key}.png").touch()
    with caplog.at_level(logging.WARNING):
        assert len(pair_anomaly_maps(images, maps)) == 3
    assert "c/9" in caplog.text


def test_a_flat_folder_is_paired_by_stem(tmp_path, images):
    maps = tmp_path / "maps"
    maps.mkdir()
    for stem in ("1", "2"):
        (maps / f"{stem}.png").touch()
    assert [path.name for path in pair_anomaly_maps(images[1:], maps)] == ["1.png", "2.png"]
    with pytest.raises(ValueError, match="'1'"):
        pair_anomaly_maps(images, maps)


def test_an_image_without_map_is_named(tmp_path, images):
    (tmp_path / "maps/a").mkdir(parents=True)
    (tmp_path / "maps/a/1.png").touch()
    with pytest.raises(FileNotFoundError, match=r"2 of 3 images.*b/1\.jpg"):
        pair_anomaly_maps(images, tmp_path / "maps")


def test_two_maps_with_one_name_are_refused(tmp_path, images):
    (tmp_path / "maps/a").mkdir(parents=True)
    for suffix in ("png", "npy"):
        (tmp_path / f"maps/a/1.{suffix}").touch()
    with pytest.raises(ValueError, match="a/1"):
        pair_anomaly_maps(images[:1], tmp_path / "maps")


def test_missing_and_empty_folders_are_named(tmp_path, images):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pair_anomaly_maps(images, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no anomaly maps"):
        pair_anomaly_maps(images, tmp_path / "empty")
