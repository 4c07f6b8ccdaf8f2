# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import shutil

import cv2
import numpy as np
import pytest

from anomalib_ncd.data.base_classes import LabelledImage, list_base, read_base_region
from anomalib_ncd.regions.reading.listing import ImageFile


def in_folder(folder):
    return LabelledImage(ImageFile(folder / "image.png", "image"), "dent", folder / "mask.png")


def test_classes_are_numbered_by_name(tiny_run):
    records, names = list_base(tiny_run.base)
    assert names == ["base_line", "base_square"]
    assert [record.class_name for record in records] == ["base_line"] * 4 + ["base_square"] * 4
    assert all(record.image.path.stem == record.mask_path.stem for record in records)


def test_a_list_narrows_the_base_down(tiny_run, tmp_path):
    list_file = tmp_path / "base.txt"
    list_file.write_text("base_square/1.png\n")
    records, names = list_base(tiny_run.base, list_file)
    assert names == ["base_square"]
    assert len(records) == 1
    list_file.write_text("base_square/77.png\n")
    with pytest.raises(FileNotFoundError, match="base_square/77"):
        list_base(tiny_run.base, list_file)


def test_a_class_without_masks_is_named(own_tiny_run):
    shutil.rmtree(own_tiny_run.base / "masks" / "base_line")
    with pytest.raises(FileNotFoundError, match=r"4 base images of the classes \['base_line'\]"):
        list_base(own_tiny_run.base)


def test_missing_folders_and_loose_images_are_named(tmp_path, own_tiny_run):
    with pytest.raises(FileNotFoundError, match="nowhere/images"):
        list_base(tmp_path / "nowhere")
    for part in ("images", "masks"):
        for path in (own_tiny_run.base / part).rglob("*.png"):
            path.rename(own_tiny_run.base / part / f"{path.parent.name}{path.name}")
    with pytest.raises(ValueError, match="folder of their class"):
        list_base(own_tiny_run.base)


def test_a_base_image_is_one_region(tmp_path):
    image = np.zeros((100, 90, 3), np.uint8)
    mask = np.zeros((100, 90), np.uint8)
    mask[10:20, 10:20] = mask[70:80, 70:80] = 255
    for name, pixels in (("image.png", image), ("mask.png", mask)):
        cv2.imwrite(str(tmp_path / name), pixels)
    pixels, region_mask = read_base_region(in_folder(tmp_path))
    assert pixels.shape == (100, 90, 3)
    np.testing.assert_array_equal(region_mask, mask > 0)


def test_masks_of_ones_and_of_another_size_are_read(tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((40, 60, 3), np.uint8))
    mask = np.zeros((20, 30), np.uint8)
    mask[:10] = 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    _, region_mask = read_base_region(in_folder(tmp_path))
    assert region_mask.shape == (40, 60)
    assert region_mask.sum() == 20 * 60


def test_an_unreadable_mask_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "mask.png").touch()
    with pytest.raises(ValueError, match=r"mask\.png"):
        read_base_region(in_folder(tmp_path))
