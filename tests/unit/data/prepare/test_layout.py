# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_ncd.data.prepare.layout import (
    PlannedImage,
    find_root,
    list_folders,
    list_pictures,
    write_layout,
)


@pytest.fixture
def plan(tmp_path):
    """A good image, and a defect with a soft mask."""
    raw = tmp_path / "raw"
    raw.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for name in ("good.png", "bad.jpg"):
        cv2.imwrite(str(raw / name), noise)
    mask = np.zeros((32, 32), np.uint8)
    mask[:8], mask[8] = 200, 90
    cv2.imwrite(str(raw / "mask.png"), mask)
    return [
        PlannedImage(raw / "good.png", "train", "good", "0.png"),
        PlannedImage(raw / "bad.jpg", "test", "dent", "1.jpg", raw / "mask.png"),
    ]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


ALL = ["ground_truth/dent/1.png", "test/dent/1.jpg", "train/good/0.png"]


def test_images_stay_as_they_are(plan, tmp_path):
    data = write_layout(plan, tmp_path / "out")
    assert files(data.root) == ALL
    for image in plan:
        target = data.root / image.target
        assert target.read_bytes() == image.source.read_bytes()


def test_what_is_there_and_whole_is_left_alone(plan, tmp_path):
    out = tmp_path / "out"
    assert write_layout(plan, out).num_written == 3
    stamps = {name: (out / name).stat().st_ctime_ns for name in ALL}
    assert write_layout(plan, out).num_written == 0
    assert stamps == {name: (out / name).stat().st_ctime_ns for name in ALL}
    (out / ALL[1]).unlink()
    (out / ALL[2]).unlink()
    (out / ALL[2]).write_bytes(b"half")
    assert write_layout(plan, out).num_written == 2
    assert (out / ALL[2]).read_bytes() == plan[0].source.read_bytes()
    assert files(out) == ALL


def test_a_killed_run_leaves_no_half_files(plan, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def killed(source, target):
        target.write_bytes(source.read_bytes()[:50])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copy2", killed)
        with pytest.raises(KeyboardInterrupt):
            write_layout(plan, out)
    assert list_pictures(out / "train" / "good") == []
    assert write_layout(plan, out).num_written == 3
    assert files(out) == ALL


def test_clean_masks_stay_as_they_are_and_empty_ones_are_told(plan, tmp_path):
    clean = np.zeros((32, 32), np.uint8)
    clean[4:8] = 255
    cv2.imwrite(str(plan[1].mask), clean)
    data = write_layout(plan, tmp_path / "out")
    np.testing.assert_array_equal(cv2.imread(str(data.root / ALL[0]), cv2.IMREAD_UNCHANGED), clean)
    assert data.empty_masks == []
    cv2.imwrite(str(plan[1].mask), np.zeros((32, 32), np.uint8))
    assert write_layout(plan, tmp_path / "other").empty_masks == [plan[1].mask]


@pytest.mark.parametrize("kind", ["colour", "alpha", "palette", "16-bit", "jpeg"])
def test_masks_of_every_kind_are_read(plan, tmp_path, kind):
    mask = np.zeros((32, 32), np.uint8)
    mask[:8] = 255
    file = plan[1].mask
    if kind == "colour":
        cv2.imwrite(str(file), np.dstack([mask, mask // 4, mask]))
    elif kind == "alpha":
        cv2.imwrite(str(file), np.dstack([mask, mask, mask, np.full_like(mask, 255)]))
    elif kind == "palette":
        Image.fromarray(mask).convert("P").save(file)
    elif kind == "16-bit":
        cv2.imwrite(str(file), mask.astype(np.uint16) * 100)
    else:  # JPEG inside, whatever the name says
        file.write_bytes(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes())
    write_layout(plan, tmp_path / "out")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / ALL[0]), cv2.IMREAD_UNCHANGED), mask)


@pytest.mark.parametrize("broken", ["empty", "text", "cut short"])
def test_unreadable_files_are_named_and_all_others_are_done(plan, tmp_path, broken):
    whole = plan[0].source.read_bytes()
    plan[0].source.write_bytes({"empty": b"", "text": b"<html>", "cut short": whole[: len(whole) // 2]}[broken])
    with pytest.raises(ValueError, match=r"1 files can't be read: .*good\.png\. All others are in .*out"):
        write_layout(plan, tmp_path / "out")
    assert files(tmp_path / "out") == ALL[:2]
    plan[0].source.write_bytes(whole)
    assert write_layout(plan, tmp_path / "out").num_written == 1


def test_images_of_another_split_are_not_mixed_in(plan, tmp_path):
    write_layout(plan, tmp_path / "out")
    moved = [PlannedImage(plan[0].source, "test", "good", "0.png"), plan[1]]
    with pytest.raises(ValueError, match=r"holds 1 images that don't belong .*train.good.0\.png"):
        write_layout(moved, tmp_path / "out")
    assert files(tmp_path / "out") == ALL


def test_two_images_of_one_stem_are_refused(plan, tmp_path):
    twin = PlannedImage(plan[0].source, "test", "dent", "1.png", plan[1].mask)
    with pytest.raises(ValueError, match=r"bad\.jpg and .*good\.png would both become test/dent/1"):
        write_layout([*plan, twin], tmp_path / "out")


def test_hidden_files_and_folders_do_not_count(tmp_path):
    for name in ("b.png", "a.JPG", "._a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("z", "y", ".git", "__MACOSX"):
        (tmp_path / name).mkdir()
    assert [path.name for path in list_pictures(tmp_path)] == ["a.JPG", "b.png"]
    assert [path.name for path in list_folders(tmp_path)] == ["y", "z"]
    assert list_folders(tmp_path / "none") == []


def test_the_root_is_found_two_levels_down_at_most(tmp_path):
    def is_root(folder):
        return (folder / "mark").is_file()

    for depth, name in enumerate(("raw", "raw/one", "raw/one/two", "raw/one/two/three")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mark").write_text("")
        if depth < 3:
            assert find_root(tmp_path / "raw", is_root, "a mark") == tmp_path / name
        else:
            with pytest.raises(FileNotFoundError, match=r"Looked in .*raw for a mark, but found one"):
                find_root(tmp_path / "raw", is_root, "a mark")
        (tmp_path / name / "mark").unlink()
    for name in "ab":
        (tmp_path / "raw" / name).mkdir()
        (tmp_path / "raw" / name / "mark").write_text("")
    with pytest.raises(ValueError, match=r"holds the data more than once: .*a, .*b\. Name one"):
        find_root(tmp_path / "raw", is_root, "a mark")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="found nothing"):
        find_root(tmp_path / "nothing", is_root, "a mark")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        find_root(tmp_path / "none", is_root, "a mark")


def test_missing_masks_are_counted(plan, tmp_path):
    lost = [PlannedImage(plan[1].source, "test", "dent", f"{i}.jpg", tmp_path / f"{i}.png") for i in range(5)]
    with pytest.raises(FileNotFoundError, match=r"5 images of defects have no mask .*bad\.jpg and 2 more"):
        write_layout([*plan, *lost], tmp_path / "out")
    assert not (tmp_path / "out").exists()
