# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_ncd.regions.reading.listing import ImageFile, ImageLimits, key_of, list_images
from anomalib_ncd.regions.reading.maps import MapPairs, map_kind, read_anomaly_map

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


@pytest.fixture
def images(tmp_path):
    return [ImageFile(tmp_path / f"images/{key}.jpg", key) for key in ("a/1", "b/1", "b/2")]


def maps(tmp_path, *names):
    (tmp_path / "maps").mkdir(exist_ok=True)
    for name in names:
        (tmp_path / "maps" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "maps" / name).touch()
    return MapPairs(tmp_path / "maps")


def test_maps_are_paired_by_path_not_by_order(tmp_path, images):
    # Another suffix for each, and a map too many that sorts first.
    folder = maps(tmp_path, "b/2.npy", "b/1.PNG", "a/1_anomaly_map.tiff", "a/0.png")
    assert [path.name for path in folder.pair(images)] == ["1_anomaly_map.tiff", "1.PNG", "2.npy"]


def test_a_map_without_image_is_left_out_with_a_warning(tmp_path, images, caplog):
    folder = maps(tmp_path, "a/1.png", "b/1.npz", "b/2.png", "c/9.png")
    with caplog.at_level(logging.WARNING):
        assert len(folder.pair(images)) == 3
    assert "c/9" in caplog.text


def test_a_flat_folder_is_paired_by_stem(tmp_path, images):
    folder = maps(tmp_path, "1.png", "2.png")
    assert [path.name for path in folder.pair(images[1:])] == ["1.png", "2.png"]
    with pytest.raises(ValueError, match="Several images are called '1'"):
        folder.pair(images)


def test_an_image_never_gets_the_map_of_another(tmp_path):
    """The map of an image at the top is not that of one in a folder whose own map is missing."""
    folder = maps(tmp_path, "1.npy", "stain/2.npy")
    folder.refresh(["1", "hole/1", "stain/2"])
    assert folder.find("hole/1") is None
    assert folder.find("1").name == "1.npy"


@pytest.mark.parametrize("keys", [["l1/0", "l2/0"], ["0", "l2/0"], ["0", "0"]])
def test_twins_of_a_name_have_no_map_in_a_flat_folder(tmp_path, keys):
    folder = maps(tmp_path, "0.npy")
    folder.refresh(keys)
    for key in keys:
        with pytest.raises(ValueError, match=r"Several images are called '0', and nothing in .*maps tells"):
            folder.find(key)


def test_maps_that_come_later_are_found_after_a_new_look(tmp_path):
    folder = maps(tmp_path)
    folder.refresh(["a/1"])
    assert folder.find("a/1") is None
    maps(tmp_path, "a/1.npy")
    assert folder.find("a/1") is None
    folder.refresh(["a/1"])
    assert folder.find("a/1") == tmp_path / "maps/a/1.npy"


def test_an_image_without_map_is_named(tmp_path, images):
    with pytest.raises(FileNotFoundError, match=r"2 of 3 images.*b/1\.jpg"):
        maps(tmp_path, "a/1.png").pair(images)


@pytest.mark.parametrize("second", ["a/1.npy", "a/1_anomaly_map.png"])
def test_two_maps_with_one_name_are_refused(tmp_path, images, second):
    with pytest.raises(ValueError, match="Two anomaly maps have the name 'a/1'"):
        maps(tmp_path, "a/1.png", second).pair(images[:1])


def test_missing_and_empty_folders_are_named(tmp_path, images):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        MapPairs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no anomaly maps"):
        maps(tmp_path).pair(images)


def test_names_of_two_systems_belong_together(tmp_path):
    joined, apart = (unicodedata.normalize(form, "höle/Prüfstück") for form in ("NFC", "NFD"))
    for folder, name in (("images", f"{joined}.png"), ("maps", f"{apart}.npy")):
        file = tmp_path / folder / name
        file.parent.mkdir(parents=True)
        file.touch()
    [image] = list_images(tmp_path / "images")
    assert image.key == joined == key_of(apart)
    [found] = MapPairs(tmp_path / "maps").pair([image])
    assert found.is_file()
