# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalib_ncd.regions.writing import Journal, OutputError, encode_image, whole_file, write_file, write_image


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_bytes_and_text_are_written_and_folders_made(tmp_path):
    write_file(tmp_path / "a" / "b" / "t.txt", "ä")
    write_file(tmp_path / "a" / "b" / "t.bin", b"\x00\xff", sync=False)
    assert (tmp_path / "a" / "b" / "t.txt").read_bytes() == "ä".encode()
    assert (tmp_path / "a" / "b" / "t.bin").read_bytes() == b"\x00\xff"
    assert names_in(tmp_path / "a" / "b") == ["t.bin", "t.txt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    write_file(tmp_path / "t.txt", "old")

    def fail():
        with whole_file(tmp_path / "t.txt") as unfinished:
            unfinished.write_text("new, but")
            msg = "no"
            raise TypeError(msg)

    with pytest.raises(TypeError):
        fail()
    assert (tmp_path / "t.txt").read_text() == "old"
    assert names_in(tmp_path) == ["t.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    file = tmp_path / "t.txt"
    with whole_file(file) as first, whole_file(file) as second:
        first.write_text("1")
        second.write_text("2")
        assert not file.exists()
    assert file.read_text() == "1"  # the outer one ended last


def test_the_reason_is_said(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"/a{300} can't be written: its name is too long"):
        write_file(tmp_path / ("a" * 300), "")
    write_file(tmp_path / ("a" * 255), "fits")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file stands where its folder should be"):
        write_file(tmp_path / "file" / "t.txt", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="a folder of that name stands there"):
        write_file(tmp_path / "folder", "")

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="no space left on the disk; free some"):
        write_file(tmp_path / "t.txt", "")
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_images_are_written_by_their_suffix(tmp_path):
    colour = np.zeros((4, 5, 3), np.uint8)
    colour[..., 0] = 200
    write_image(tmp_path / "a" / "c.png", colour)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a" / "c.png"))[0, 0], [0, 0, 200])
    write_image(tmp_path / "m.png", np.eye(4, dtype=bool), sync=False)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED), np.eye(4) * 255)
    assert len(encode_image(colour, ".jpg", 10)) < len(encode_image(colour, ".jpg", 99))
    with pytest.raises(ValueError, match=r"shape \(4, 5, 3\) can't be encoded as '.what'"):
        write_image(tmp_path / "c.what", colour)


def test_a_journal_goes_on_as_long_as_all_is_made_from_the_same(tmp_path):
    file = tmp_path / "new" / "done.jsonl"
    journal = Journal(file, "a")
    assert journal.entries == {}
    for state in (1, 2):
        journal.add({"image": "x/ä", "state": state})
    journal.add({"image": "y", "state": 3})
    for found in (Journal(file, "a"), Journal(file)):
        assert found.made_from == "a"
        assert found.entries == {"x/ä": {"image": "x/ä", "state": 2}, "y": {"image": "y", "state": 3}}
    assert Journal(file, "b").entries == {}
    assert Journal(file, "a").entries == {}  # what was made in between is not known
    assert Journal(tmp_path / "none" / "done.jsonl").made_from is None
    assert names_in(tmp_path) == ["new"]


@pytest.mark.parametrize("kept", [{"x"}, {"x", "z"}])
def test_lines_that_a_kill_has_cut_are_left_out_of_a_journal(tmp_path, caplog, kept):
    file = tmp_path / "done.jsonl"
    journal = Journal(file, "a")
    for image in ("x", "y"):
        journal.add({"image": image})
    file.write_text(file.read_text()[:-4] + ("\n" if "z" in kept else ""))
    if "z" in kept:
        journal.add({"image": "z"})
    found = Journal(file, "a")
    assert set(found.entries) == kept
    assert f"{file} was cut short when a run was killed" in caplog.text
    found.add({"image": "y"})
    caplog.clear()
    assert set(Journal(file).entries) == kept | {"y"}
    assert not caplog.text
