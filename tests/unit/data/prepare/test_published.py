# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging

import cv2
import numpy as np
import pytest
from anomalib.data import Folder

from anomalib_ncd.data.labels import read_labels
from anomalib_ncd.data.prepare.published import prepare_mtd
from anomalib_ncd.regions.reading.listing import list_images

DEFECTS = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven")
GOOD = [f"exp{i % 3}_num_{i}" for i in range(10)]


@pytest.fixture
def raw(tmp_path):
    """Two defects of each kind and ten good tiles, as published: masks with soft edges beside the images."""
    root = tmp_path / "raw" / "Magnetic-tile-defect-datasets.-master"
    for kind in (*DEFECTS, "MT_Free"):
        folder = root / kind / "Imgs"
        folder.mkdir(parents=True)
        for stem in GOOD if kind == "MT_Free" else ("exp1_num_7", "exp1_num_77"):
            cv2.imwrite(str(folder / f"{stem}.jpg"), np.full((24, 20), 90, np.uint8))
            mask = np.zeros((24, 20), np.uint8)
            if kind != "MT_Free":
                mask[4:9, 4:9] = 255
                mask[9, 4:9], mask[10, 4:9] = 130, 3  # the soft edge
            cv2.imwrite(str(folder / f"{stem}.png"), mask)
    (root / "README.md").write_text("published")
    return tmp_path / "raw"


def imgs(raw, kind):
    return raw / "Magnetic-tile-defect-datasets.-master" / kind / "Imgs"


def names(folder):
    return sorted(path.stem for path in folder.iterdir())


def test_the_layout_is_that_of_mvtec_ad(raw, tmp_path):
    data = prepare_mtd(raw, tmp_path / "out")
    assert data.defects == sorted(DEFECTS)
    assert data.num_images == {**{f"test/{kind}": 2 for kind in DEFECTS}, "test/good": 2, "train/good": 8}
    assert data.num_masks == dict.fromkeys(DEFECTS, 2)
    assert data.num_written == 30
    out = data.root
    assert sorted(path.name for path in out.iterdir()) == ["ground_truth", "test", "train"]
    assert sorted(path.name for path in (out / "ground_truth").iterdir()) == sorted(DEFECTS)
    published = imgs(raw, "MT_Crack") / "exp1_num_7.jpg"
    assert (out / "test" / "MT_Crack" / "exp1_num_7.jpg").read_bytes() == published.read_bytes()


def test_masks_are_cut_at_half_their_brightness(raw, tmp_path):
    prepare_mtd(raw, tmp_path / "out")
    mask = cv2.imread(str(tmp_path / "out" / "ground_truth" / "MT_Fray" / "exp1_num_77.png"), cv2.IMREAD_UNCHANGED)
    expected = np.zeros((24, 20), np.uint8)
    expected[4:10, 4:9] = 255
    np.testing.assert_array_equal(mask, expected)


def test_black_masks_of_good_tiles_are_no_images(raw, tmp_path):
    prepare_mtd(raw, tmp_path / "out")
    good = names(tmp_path / "out" / "train" / "good") + names(tmp_path / "out" / "test" / "good")
    assert sorted(good) == sorted(GOOD)
    assert not list((tmp_path / "out").rglob("good/*.png"))


def test_the_draw_depends_on_the_seed_alone(raw, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare_mtd(raw, tmp_path / name, train_ratio=0.5, seed=seed)
    a, b, c = (names(tmp_path / name / "train" / "good") for name in "abc")
    assert a == b != c
    assert len(a) == len(c) == 5


@pytest.mark.parametrize("line", ["{}", "{}.jpg", "MT_Free/Imgs/{}.jpg", "MT_Free\\Imgs\\{}.png", "  {}.jpg  "])
def test_the_list_decides_who_trains(raw, tmp_path, line):
    (tmp_path / "list.txt").write_text("# train\n" + "\n".join(line.format(stem) for stem in GOOD[:3]) + "\n\n")
    data = prepare_mtd(raw, tmp_path / "out", train_list=tmp_path / "list.txt")
    assert names(data.root / "train" / "good") == sorted(GOOD[:3])
    assert names(data.root / "test" / "good") == sorted(GOOD[3:])


def test_discover_and_anomalib_read_it(raw, tmp_path):
    data = prepare_mtd(raw, tmp_path / "mtd")
    records = list_images(data.root / "test")
    assert len(records) == 12
    assert set(read_labels(records, "folders")) == {*DEFECTS, "good"}
    folder = Folder(
        name="mtd",
        root=data.root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{kind}" for kind in DEFECTS],
        mask_dir=[f"ground_truth/{kind}" for kind in DEFECTS],
        val_split_mode="same_as_test",
        num_workers=0,
    )
    folder.setup()
    assert (len(folder.train_data), len(folder.test_data)) == (8, 12)
    defects = [item for item in folder.test_data if item.gt_label]
    assert len(defects) == 10
    assert all(int(item.gt_mask.sum()) == 30 for item in defects)


def test_names_that_are_not_there_are_refused(raw, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text(f"{GOOD[0]}.jpg\nexp1_num_77.jpg\n")
    with pytest.raises(ValueError, match=r"names 2 images, of which 1 are not in .*Imgs, such as \['exp1_num_77'\]"):
        prepare_mtd(raw, tmp_path / "out", train_list=file)
    file.write_text("\n")
    with pytest.raises(ValueError, match="names 0 images"):
        prepare_mtd(raw, tmp_path / "out", train_list=file)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        prepare_mtd(raw, tmp_path / "out", train_list=tmp_path / "none.txt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 80])
def test_shares_lie_between_0_and_1(raw, tmp_path, ratio):
    with pytest.raises(ValueError, match=f"`train_ratio` must lie between 0 and 1, got {ratio}"):
        prepare_mtd(raw, tmp_path / "out", train_ratio=ratio)


def test_defects_need_masks(raw, tmp_path):
    (imgs(raw, "MT_Break") / "exp1_num_7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images of defects have no mask .*MT_Break.*exp1_num_7\.jpg"):
        prepare_mtd(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_folders_are_refused(raw, tmp_path):
    (tmp_path / "holiday" / "beach").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"for MT_Free/Imgs and .*, but found beach"):
        prepare_mtd(tmp_path / "holiday", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        prepare_mtd(tmp_path / "none", tmp_path / "out")


def test_half_an_archive_is_refused_or_said(raw, tmp_path, caplog):
    for path in imgs(raw, "MT_Uneven").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"MT_Uneven.Imgs holds no \.jpg images"):
        prepare_mtd(raw, tmp_path / "out")
    imgs(raw, "MT_Uneven").rmdir()
    with caplog.at_level(logging.WARNING):
        data = prepare_mtd(raw, tmp_path / "out")
    assert "lacks MT_Uneven" in caplog.text
    assert "MT_Uneven" not in data.defects
    for kind in DEFECTS[:-1]:
        imgs(raw, kind).rename(imgs(raw, kind).parent / "elsewhere")
    with pytest.raises(FileNotFoundError, match="found no kind of defect"):
        prepare_mtd(raw, tmp_path / "other")
