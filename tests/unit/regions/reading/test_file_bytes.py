# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import os

import pytest

from anomalib_ncd.regions.reading.file_bytes import ImageLimits, check_name, printable, read_bytes, stamp_of


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "müller.png").write_bytes(b"data")
    assert read_bytes(tmp_path / "müller.png", "Image") == b"data"


def test_what_is_missing_empty_or_large_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Image .*gone\.png is missing"):
        read_bytes(tmp_path / "gone.png", "Image")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png is empty: it is being written still, or was cut off"):
        read_bytes(tmp_path / "empty.png", "Image")
    (tmp_path / "large.png").write_bytes(b"data")
    with pytest.raises(ValueError, match=r"Map .*large\.png has 4 bytes, more than the limit of 3; cut it or raise"):
        read_bytes(tmp_path / "large.png", "Map", ImageLimits(max_file_bytes=3))


def test_folders_pipes_and_devices_are_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    names = [tmp_path / "folder.png", os.devnull]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        names.append(tmp_path / "pipe.png")
    for name in names:
        with pytest.raises(ValueError, match="is no regular file but a folder, a pipe or a device"):
            read_bytes(name, "Image")


def test_names_that_are_not_utf8_are_shown_and_refused():
    name = os.fsdecode(b"m\xfcller.png")
    assert printable(name) == r"m\xfcller.png"
    assert printable("müller.png") == "müller.png"
    check_name("müller.png")
    with pytest.raises(ValueError, match=r"The name of m\\xfcller\.png is not UTF-8; rename"):
        check_name(name)
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_bytes(name, "Image")


def test_a_stamp_tells_an_older_file_too(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    os.utime(tmp_path / "a", ns=(5, 5_000_000_000))
    assert stamp_of(tmp_path / "a") == (3, 5_000_000_000)
