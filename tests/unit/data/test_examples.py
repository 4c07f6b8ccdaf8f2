# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import shutil

import pytest

from anomalib_ncd.data.examples import list_examples
from anomalib_ncd.regions.reading.listing import ImageFile


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
