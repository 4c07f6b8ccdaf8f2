# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
from anomalib.data import Folder

from anomalib_ncd.data.images import images_of


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
