# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import shutil

import cv2
import numpy as np
import pytest
from anomalib.data import Folder

from anomalib_ncd.data.images import LabelledImage, images_of, list_base, list_examples, read_base_region
from anomalib_ncd.regions.reading.listing import ImageFile


def folder_of(tiny_run, **options):
    return Folder(
        name="tiny", root=tiny_run.images, normal_dir="good", abnormal_dir=["line", "square"], num_workers=0, **options
    )


def test_a_folder_is_listed(tiny_run):
    assert len(images_of(tiny_run.images)) == 18
    with pytest.raises(FileNotFoundError, match=r"nowhere.*`normal_images`"):
        images_of(tiny_run.images / "nowhere", argument="normal_images")


def test_an_anomalib_datamodule_gives_its_test_images(tiny_run):
    datamodule = folder_of(tiny_run, test_split_mode="from_dir", val_split_mode="none")
    keys = [image.key for image in images_of(datamodule)]
    assert {"line/000", "square/005"} <= set(keys)
    assert sum(key.startswith("line") for key in keys) == 6


@pytest.mark.parametrize("val_split_mode", ["from_test", "same_as_test"])
def test_no_test_image_is_held_back_for_validation(tiny_run, val_split_mode):
    keys = [image.key for image in images_of(folder_of(tiny_run, val_split_mode=val_split_mode))]
    assert sum(key.startswith("line") for key in keys) == 6
    assert sum(key.startswith("square") for key in keys) == 6
    assert len(set(keys)) == len(keys)


def test_a_list_narrows_a_datamodule_down(tiny_run, tmp_path):
    (tmp_path / "list.txt").write_text("line/003.png\n")
    datamodule = folder_of(tiny_run, val_split_mode="none")
    assert [image.key for image in images_of(datamodule, tmp_path / "list.txt")] == ["line/003"]


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


@pytest.fixture
def folder(own_tiny_run, tmp_path):
    """Two examples of a kind, one of them with a mask, and one of another."""
    files = {"line/a": "images/line/000", "line/b": "images/line/001", "big square/a": "images/square/000"}
    files["line/a_mask"] = "base/masks/base_line/0"
    for name, source in files.items():
        target = tmp_path / "examples" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(own_tiny_run.images.parent / f"{source}.png", target)
    return tmp_path / "examples"


def test_images_masks_and_classes(folder):
    (folder / ".hidden").mkdir()
    found = list_examples(folder)
    assert [(one.image.key, one.class_name) for one in found] == [
        ("big square/a", "big square"),
        ("line/a", "line"),
        ("line/b", "line"),
    ]
    assert [one.mask_path for one in found] == [None, folder / "line" / "a_mask.png", None]


def test_a_name_that_only_looks_like_a_mask_is_an_image(folder):
    (folder / "line" / "a.png").unlink()
    assert "line/a_mask" in {one.image.key for one in list_examples(folder)}


def test_what_cannot_be_used_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"no image folder .*nowhere.*`examples`"):
        list_examples(folder / "nowhere")
    with pytest.raises(ValueError, match=r"line/b\.png is one of the images, too"):
        list_examples(folder, [ImageFile(folder / "line" / "b.png", "b")])
    (folder / "dent").mkdir()
    with pytest.raises(FileNotFoundError, match=r"'dent' .* has no images"):
        list_examples(folder)
    (folder / "dent").rmdir()
    (folder / "line").rename(folder / "class_2")
    with pytest.raises(ValueError, match="can't be called 'class_2', as discovery numbers so"):
        list_examples(folder)
    (folder / "class_2").rename(folder / "a;b")
    with pytest.raises(ValueError, match="';' parts names"):
        list_examples(folder)
    with pytest.raises(ValueError, match="lies at the top"):
        list_examples(folder / "a;b")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="holds no images"):
        list_examples(folder)
