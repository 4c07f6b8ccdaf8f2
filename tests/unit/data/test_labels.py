# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalib_ncd.data.labels import class_ids, components, has_defects, image_labels, read_defects, read_labels
from anomalib_ncd.regions.reading.listing import ImageFile

IMAGES = [ImageFile(Path(f"images/{key}.png"), key) for key in ("dent/0", "good/0", "good/1")]

IMAGES_defects = [ImageFile(Path(f"images/{key}.png"), key) for key in ("a/0", "a/1", "b/0")]
HEAD = "image,left,top,right,bottom,class\n"


def test_no_labels():
    assert read_labels(IMAGES, None) == [None, None, None]


def test_folders_are_labels():
    assert read_labels(IMAGES, "folders") == ["dent", "good", "good"]
    with pytest.raises(ValueError, match=r"top\.png lies at the top"):
        read_labels([ImageFile(Path("images/top.png"), "top")], "folders")


def test_a_csv_labels_by_relative_path_with_or_without_suffix(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("image,class,comment\ngood/1.png,good,x\ndent/0,dent,y\n")
    assert read_labels(IMAGES, file) == ["dent", None, "good"]


def test_bad_label_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.csv"):
        read_labels(IMAGES, tmp_path / "labels.csv")
    file = tmp_path / "labels.csv"
    file.write_text("file,class\na,b\n")
    with pytest.raises(ValueError, match=r"lacks the columns \['image'\]"):
        read_labels(IMAGES, file)
    file.write_text("image,class\nelse/0,b\n")
    with pytest.raises(ValueError, match="none of the 3 images"):
        read_labels(IMAGES, file)


def test_rows_that_lack_something_or_contradict_are_named_with_their_line(tmp_path):
    file = tmp_path / "labels.csv"
    for row in ("good/1.png", "good/1.png,", ",good"):
        file.write_text(f"image,class\ndent/0,dent\n{row}\n")
        with pytest.raises(ValueError, match=r"Line 3 of .*labels\.csv must name an image and its class"):
            read_labels(IMAGES, file)
    file.write_text("image,class\ngood/1.png,good\ngood/1,good\ngood/1,dent\n")
    with pytest.raises(ValueError, match=r"Line 4 of .*labels\.csv calls 'good/1' 'dent', another one 'good'"):
        read_labels(IMAGES, file)
    file.write_bytes("image,class\nmüller,good\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.csv is no text in UTF-8"):
        read_labels(IMAGES, file)


def test_the_normal_class_is_numbered_first():
    assert class_ids(["b", "good", None, "a"], "good") == ([2, 0, -1, 1], ["good", "a", "b"])
    assert class_ids(["b", "a"], "good") == ([1, 0], ["a", "b"])


def write(folder, text):
    (folder / "boxes.csv").write_text(text)
    return folder / "boxes.csv"


def test_boxes_are_defects(tmp_path, caplog):
    file = write(tmp_path, f"{HEAD}a/0.png,1,2,4,8,dent\na/0,5,5,6,6,scratch\nb/0,,,,,good\n")
    assert has_defects(file)
    with caplog.at_level(logging.WARNING, "anomalib_ncd"):
        first, second, third = read_defects(IMAGES_defects, file)
    assert [(one.class_name, one.box_xyxy, one.mask.shape) for one in first] == [
        ("dent", (1, 2, 4, 8), (6, 3)),
        ("scratch", (5, 5, 6, 6), (1, 1)),
    ]
    assert second == third == []
    assert "1 of 3 images are not in" in caplog.text
    assert image_labels([first, second, first[:1]], "good") == [None, "good", "dent"]


def test_masks_are_defects_by_component_and_class(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:5, 3:6] = mask[10:12, 20:24] = 2
    mask[5, 3:6] = 7
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a" / "1.png"), mask)
    assert has_defects(tmp_path)
    _, found, _ = read_defects(IMAGES_defects, tmp_path)
    assert [(one.class_name, one.box_xyxy) for one in found] == [
        ("2", (3, 2, 6, 5)),
        ("2", (20, 10, 24, 12)),
        ("7", (3, 5, 6, 6)),
    ]
    assert all(one.mask.all() for one in found)


def test_pieces_that_a_pixel_divides_are_one():
    assert [one.box_xyxy for one in components(np.array([[1, 0, 1, 0, 0, 0, 1]], bool))] == [(0, 0, 3, 1), (6, 0, 7, 1)]
    assert components(np.zeros((3, 3), bool)) == []


def test_labels_of_images_have_no_defects(tmp_path):
    file = write(tmp_path, "image,class\na/0,dent\n")
    assert not any(has_defects(labels) for labels in (None, "folders", file, tmp_path / "gone.csv"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a/0,4,2,1,8,dent", r"Line 2 of .*boxes\.csv must have left < right .* got 4, 2, 1, 8"),
        ("a/0,1,2,x,8,dent", r"got 1, 2, x, 8"),
        ("a/0,1,2,nan,8,dent", r"got 1, 2, nan, 8"),
        ("a/0,1,2,4,8,", r"must name an image and the class of its defect, got 'a/0' and ''"),
        ("else,1,2,4,8,dent", r"name none of the 3 images; its paths should be like a/0"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_defects(IMAGES_defects, write(tmp_path, HEAD + row + "\n"))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"lacks the columns \['class'\]"):
        read_defects(IMAGES_defects, write(tmp_path, "image,left,top,right,bottom\n"))
    (tmp_path / "masks" / "a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "masks" / "a" / "0.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"0\.png must be grey with the number of a class"):
        read_defects(IMAGES_defects, tmp_path / "masks")
