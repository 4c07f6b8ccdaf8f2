# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_ncd.regions.reading.file_bytes import ImageLimits
from anomalib_ncd.regions.reading.maps import map_kind, read_anomaly_map

RAMP = np.arange(12).reshape(3, 4)


def write(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, values)
    else:
        path.write_bytes(cv2.imencode(path.suffix, values)[1].tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("m.png", np.uint8),
        ("m.png", np.uint16),
        ("m.tiff", np.float32),
        ("m.tiff", np.uint16),
        ("m.npy", np.uint8),
        ("m.npy", np.float32),
        ("m.npy", np.float64),
        ("m.npz", np.float32),
    ],
)
def test_maps_keep_their_values_and_type(tmp_path, name, dtype):
    values = RAMP.astype(dtype) * (1000 if dtype == np.uint16 else 1)
    anomaly_map = read_anomaly_map(write(tmp_path / name, values))
    assert anomaly_map.dtype == dtype
    np.testing.assert_array_equal(anomaly_map, values)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint32])
def test_other_integers_become_floats(tmp_path, dtype):
    anomaly_map = read_anomaly_map(write(tmp_path / "m.npy", RAMP.astype(dtype)))
    assert anomaly_map.dtype == np.float64
    np.testing.assert_array_equal(anomaly_map, RAMP)
    assert map_kind(anomaly_map) == "float"
    assert map_kind(RAMP.astype(np.uint8)) == "uint8"


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (3, 4, 1), (1, 3, 4), (1, 3, 4, 1)])
def test_axes_of_length_one_are_dropped(tmp_path, shape):
    anomaly_map = read_anomaly_map(write(tmp_path / "m.npy", RAMP.reshape(shape).astype(np.float16)))
    assert anomaly_map.dtype == np.float32
    np.testing.assert_array_equal(anomaly_map, RAMP)


def test_what_is_no_single_map_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"m\.npy must be a numeric \(H, W\) array, got float32 \(2, 3, 4\)"):
        read_anomaly_map(write(tmp_path / "m.npy", np.stack([RAMP, RAMP]).astype(np.float32)))
    with pytest.raises(ValueError, match="bool"):
        read_anomaly_map(write(tmp_path / "m.npy", RAMP > 5))
    np.savez(tmp_path / "m.npz", a=RAMP, b=RAMP)
    with pytest.raises(ValueError, match=r"m\.npz .*it holds the arrays \['a', 'b'\]"):
        read_anomaly_map(tmp_path / "m.npz")
    page = Image.fromarray(RAMP.astype(np.uint8))
    page.save(tmp_path / "m.tif", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match=r"m\.tif holds several pages"):
        read_anomaly_map(tmp_path / "m.tif")


def test_the_content_says_what_a_file_is(tmp_path):
    values = RAMP.astype(np.float32)
    write(tmp_path / "a.npz", values).rename(tmp_path / "a.npy")
    write(tmp_path / "b.npy", values).rename(tmp_path / "b.npz")
    write(tmp_path / "c.tiff", values).rename(tmp_path / "c.png")
    for name in ("a.npy", "b.npz", "c.png"):
        np.testing.assert_array_equal(read_anomaly_map(tmp_path / name), values)


def test_grey_pictures_with_three_channels_are_maps_and_colours_are_not(tmp_path):
    grey = write(tmp_path / "grey.png", np.repeat(RAMP[..., None].astype(np.uint8), 3, axis=2))
    np.testing.assert_array_equal(read_anomaly_map(grey), RAMP)
    jet = write(tmp_path / "jet.png", cv2.applyColorMap(RAMP.astype(np.uint8) * 20, cv2.COLORMAP_JET))
    with pytest.raises(ValueError, match=r"jet\.png is a colour picture"):
        read_anomaly_map(jet)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_named(tmp_path, bad):
    values = RAMP.astype(np.float32)
    values[1, 1] = bad
    with pytest.raises(ValueError, match=r"broken\.npy.*NaN"):
        read_anomaly_map(write(tmp_path / "broken.npy", values))


@pytest.mark.parametrize("name", ["m.png", "m.npy", "m.npz", "m.tiff"])
def test_unreadable_and_half_written_maps_are_named(tmp_path, name):
    path = tmp_path / name
    path.write_text("no map")
    with pytest.raises(ValueError, match=name):
        read_anomaly_map(path)
    values = np.random.default_rng(0).random((60, 70)) * 255
    data = write(path, values.astype(np.uint8 if name == "m.png" else np.float32)).read_bytes()
    for length in (0, 20, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=name):
            read_anomaly_map(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_anomaly_map(path)


def test_no_code_in_a_map_is_run(tmp_path):
    np.save(tmp_path / "m.npy", np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read_anomaly_map(tmp_path / "m.npy")


def test_giants_are_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
    (tmp_path / "m.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))
    with pytest.raises(ValueError, match=r"m\.npy is cut off, damaged or no single map"):
        read_anomaly_map(tmp_path / "m.npy")
    with pytest.raises(ValueError, match="it unpacks to"):
        read_anomaly_map(write(tmp_path / "m.npz", np.zeros((200, 200))), ImageLimits(max_pixels=100))
    with pytest.raises(ValueError, match="has 40,000 values, more than the limit of 100"):
        read_anomaly_map(write(tmp_path / "big.npy", np.zeros((200, 200))), ImageLimits(max_pixels=100))
