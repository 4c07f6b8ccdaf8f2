# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import cv2
import numpy as np
import pytest
from anomalib.data import Folder

from anomalib_ncd.data.images import key_of, list_images, read_image, read_relative_paths


def _write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def test_images_are_listed_by_relative_path_without_suffix(tmp_path):
    for name in ("b/2.jpg", "a/1.png", "a/deep/0.bmp"):
        _write(tmp_path / name, np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    assert [record.key for record in list_images(tmp_path)] == ["a/1", "a/deep/0", "b/2"]
    assert list_images(tmp_path)[0].folder_name == "a"


def test_one_image_is_a_source_too(tmp_path):
    path = _write(tmp_path / "only.png", np.zeros((20, 20), np.uint8))
    assert [record.path for record in list_images(path)] == [path]


def test_an_anomalib_datamodule_gives_its_test_images(tiny_run):
    datamodule = Folder(
        name="tiny",
        root=tiny_run.images,
        normal_dir="good",
        abnormal_dir=["line", "square"],
        test_split_mode="from_dir",
        val_split_mode="none",
    )
    keys = [record.key for record in list_images(datamodule)]
    assert {"line/000", "square/005"} <= set(keys)
    assert sum(key.startswith("line") for key in keys) == 6


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_missing_and_empty_folders_are_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        list_images(tmp_path / name)


def test_two_images_with_one_stem_are_refused(tmp_path):
    for suffix in ("png", "jpg"):
        _write(tmp_path / f"a/1.{suffix}", np.zeros((20, 20), np.uint8))
    with pytest.raises(ValueError, match=r"a/1.*Rename"):
        list_images(tmp_path)


def test_a_list_narrows_the_images_down(tmp_path):
    for name in ("a/1.png", "a/2.png"):
        _write(tmp_path / "images" / name, np.zeros((20, 20), np.uint8))
    list_file = tmp_path / "list.txt"
    list_file.write_text("# half of them\n\na/2.png\n")
    assert [record.key for record in list_images(tmp_path / "images", list_file)] == ["a/2"]
    list_file.write_text("a/3.png\n")
    with pytest.raises(FileNotFoundError, match="a/3"):
        list_images(tmp_path / "images", list_file)
    list_file.write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        list_images(tmp_path / "images", list_file)
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        read_relative_paths(tmp_path / "gone.txt")


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((20, 20), 77, np.uint8), (77, 77, 77)),
        (np.full((20, 20, 3), (1, 2, 3), np.uint8), (3, 2, 1)),
        (np.full((20, 20, 4), (1, 2, 3, 9), np.uint8), (3, 2, 1)),
        (np.full((20, 20), 65535, np.uint16), (255, 255, 255)),
        (np.full((20, 20, 3), 257 * 40, np.uint16), (40, 40, 40)),
    ],
    ids=["grey", "colour", "alpha", "16-bit grey", "16-bit colour"],
)
def test_every_kind_of_image_becomes_rgb8(tmp_path, pixels, expected):
    image = read_image(_write(tmp_path / "image.png", pixels))
    assert image.shape == (20, 20, 3)
    assert image.dtype == np.uint8
    assert tuple(image[7, 7]) == expected


def test_bad_images_are_named(tmp_path):
    empty = tmp_path / "empty.png"
    empty.touch()
    text = tmp_path / "text.png"
    text.write_text("no image")
    for path in (empty, text, tmp_path / "missing.png"):
        with pytest.raises(ValueError, match=path.name):
            read_image(path)
    pixel = _write(tmp_path / "pixel.png", np.zeros((1, 1), np.uint8))
    with pytest.raises(ValueError, match=r"pixel\.png is 1x1 pixels"):
        read_image(pixel)
    floats = _write(tmp_path / "floats.tiff", np.zeros((20, 20), np.float32))
    with pytest.raises(ValueError, match="float32"):
        read_image(floats)


def test_keys_lose_image_suffixes_alone():
    assert key_of("a/exp1.5_num.jpg") == "a/exp1.5_num"
    assert key_of("a/exp1.5_num") == "a/exp1.5_num"
