# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from anomalib_ncd.regions.reading.listing import (
    ImageFile,
    ImageLimits,
    check_name,
    digest_of_images,
    find_files,
    key_of,
    list_images,
    mark_output,
    narrow,
    printable,
    read_bytes,
    read_text,
    stamp_of,
)
from anomalib_ncd.regions.writing import OutputError


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


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def keys(*args):
    return [image.key for image in list_images(*args)]


def found(folder, others=None):
    return [path.relative_to(folder).as_posix() for path in find_files(folder, {".png", ".tif"}, others)]


def test_images_are_listed_by_relative_path_without_suffix(tmp_path):
    touch(tmp_path, "b/2.jpg", "a/1.png", "a/deep/0.bmp")
    assert keys(tmp_path) == ["a/1", "a/deep/0", "b/2"]
    assert list_images(tmp_path)[0].folder_name == "a"
    assert list_images(tmp_path)[0].path == tmp_path / "a/1.png"


def test_one_image_is_a_source_too(tmp_path):
    file = touch(tmp_path, "only.png", "other.png") / "only.png"
    assert list_images(file) == [ImageFile(file, "only")]


def test_another_spelling_of_the_folder_gives_the_same_keys(tmp_path, monkeypatch):
    touch(tmp_path, "images/a/1.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for spelling in ("images", "./images/", "images/../images", tmp_path / "images", "link"):
        assert keys(spelling) == ["a/1"]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_missing_and_empty_folders_are_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        list_images(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="`normal_images`"):
        list_images(tmp_path / "missing", argument="normal_images")


def test_two_images_with_one_stem_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a/1.*Rename"):
        list_images(touch(tmp_path, "a/1.png", "a/1.jpg"))


def test_other_suffixes_are_counted_and_said_once(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "a/2.gif", "b/3.gif", "notes", ".hidden.gif")
    others = Counter()
    assert found(tmp_path, others) == ["a/1.png"]
    assert others == {".gif": 2, "": 1}
    with caplog.at_level(logging.WARNING):
        list_images(tmp_path)
    [record] = caplog.records
    assert "3 files in" in record.message
    assert "(no suffix: 1, .gif: 2)" in record.message


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    touch(tmp_path, "b/2.PNG", "b/10.png", "a.tif", "b/c/1.png", ".hidden.png", ".part/1.png", "notes.txt")
    assert found(tmp_path) == ["a.tif", "b/10.png", "b/2.PNG", "b/c/1.png"]
    assert list(find_files(tmp_path / "a.tif", {".tif"})) == [tmp_path / "a.tif"]
    assert list(find_files(tmp_path / "vanished", {".tif"})) == []


def test_links_are_followed_and_each_real_folder_is_searched_once(tmp_path):
    touch(tmp_path, "images/b/1.png", "elsewhere/2.png")
    (tmp_path / "images/a").symlink_to(tmp_path / "images/b")  # sorts before the real one, which counts nevertheless
    (tmp_path / "images/stain").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/b/loop").symlink_to(tmp_path / "images")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/3.png").symlink_to(tmp_path / "images/b/1.png")
    assert found(tmp_path / "images") == ["3.png", "b/1.png", "stain/2.png"]


def test_results_are_never_taken_as_input(tmp_path):
    touch(tmp_path, "a/1.png", "run/gallery.png", "run/regions/images/a/1_region0.png")
    assert found(tmp_path) == ["a/1.png", "run/gallery.png", "run/regions/images/a/1_region0.png"]
    mark_output(tmp_path / "run")
    assert found(tmp_path) == ["a/1.png"]
    assert found(tmp_path / "run" / "regions") == ["images/a/1_region0.png"]  # named by its user
    with pytest.raises(ValueError, match="run holds results of anomalib_ncd, which are no input"):
        list_images(tmp_path / "run")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path):
    touch(tmp_path, "a/1.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/m\xfcller.png")).touch()
    with pytest.raises(ValueError, match=r"a/m\\xfcller\.png is not UTF-8"):
        list_images(tmp_path)
    assert [key_of(path.relative_to(tmp_path)) for path in find_files(tmp_path, {".png"})] == ["a/1", r"a/m\xfcller"]


def test_a_folder_without_permission_is_said(tmp_path, caplog, monkeypatch):
    touch(tmp_path, "a/1.png", "b/2.png")
    real = os.scandir

    def forbid(folder):
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", forbid)
    assert found(tmp_path) == ["b/2.png"]
    assert "a can't be read and is left out: Permission denied" in caplog.text


def test_a_list_narrows_the_images_down(tmp_path):
    images, list_file = touch(tmp_path / "images", "a/1.png", "a/2.png", "#3/4.png"), tmp_path / "list.txt"
    list_file.write_text("\ufeff# half of them\n\n./a/2.png\n", encoding="utf-8")
    assert keys(images, list_file) == ["a/2"]
    list_file.write_text("a/2\n#3/4.png\n#5/6.png\n")  # the second line names an image, the third is a comment
    assert keys(images, list_file) == ["#3/4", "a/2"]
    list_file.write_text("a/2\n#3/5.png\n")  # a slip, as there is such a folder
    with pytest.raises(FileNotFoundError, match="#3/5"):
        keys(images, list_file)
    list_file.write_text("a/3.png\n")
    with pytest.raises(FileNotFoundError, match="a/3"):
        keys(images, list_file)
    list_file.write_text("\n# nothing\n")
    with pytest.raises(ValueError, match="empty"):
        keys(images, list_file)
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        narrow(["a"], tmp_path / "gone.txt", images)


def test_a_text_of_another_encoding_is_named(tmp_path):
    (tmp_path / "list.txt").write_bytes("müller.png".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt is no text in UTF-8 .*save it"):
        read_text(tmp_path / "list.txt")


def test_keys_lose_image_suffixes_alone():
    assert key_of("a/exp1.5_num.jpg") == "a/exp1.5_num"
    assert key_of("a/exp1.5_num") == "a/exp1.5_num"


def test_a_digest_tells_whether_images_are_the_same(tmp_path):
    touch(tmp_path, "a.png")
    image = ImageFile(tmp_path / "a.png", "a")
    before = digest_of_images([image])
    assert digest_of_images([image]) == before
    os.utime(image.path, ns=(7, 7))  # older than before
    assert digest_of_images([image]) != before


def test_a_file_in_the_place_of_results_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="can't be written: a file stands where its folder should be"):
            mark_output(folder)
