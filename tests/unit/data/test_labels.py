# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import pytest

from anomalib_ncd.data.labels import class_ids, read_labels
from anomalib_ncd.regions.reading.listing import ImageFile

IMAGES = [ImageFile(Path(f"images/{key}.png"), key) for key in ("dent/0", "good/0", "good/1")]


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
