# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
import unicodedata

import pytest

from anomalib_ncd.regions.reading.listing import ImageFile, key_of, list_images
from anomalib_ncd.regions.reading.pairing import MapPairs


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
