# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
import shutil

import cv2
import numpy as np
import pytest
from anomalib.data import Folder, MVTecAD
from PIL import Image

from anomalib_ncd.data.labels import read_labels
from anomalib_ncd.data.prepare import (
    PlannedImage,
    find_root,
    list_folders,
    list_pictures,
    prepare_aebad,
    prepare_mtd,
    write_layout,
)
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import list_images

ALL = ["ground_truth/dent/1.png", "test/dent/1.jpg", "train/good/0.png"]
DEFECTS = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray", "MT_Uneven")
GOOD = [f"exp{i % 3}_num_{i}" for i in range(10)]
CLASSES = ("ablation", "breakdown", "fracture", "good", "groove")
DOMAINS = ("background", "illumination", "same", "view")


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


def test_images_stay_as_they_are(plan, tmp_path):
    data = write_layout(plan, tmp_path / "out")
    assert files(data.root) == ALL
    for image in plan:
        target = data.root / image.target
        assert target.read_bytes() == image.source.read_bytes()


def test_a_folder_that_holds_files_is_refused(plan, tmp_path):
    out = tmp_path / "out"
    write_layout(plan, out)
    stamps = {name: (out / name).stat().st_ctime_ns for name in ALL}
    moved = [PlannedImage(plan[0].source, "test", "good", "0.png"), plan[1]]
    for again in (plan, moved):
        with pytest.raises(FileExistsError, match=r"out holds files already, which these would be mixed with"):
            write_layout(again, out)
    assert stamps == {name: (out / name).stat().st_ctime_ns for name in ALL}
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
    shutil.rmtree(out)
    write_layout(plan, out)
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
@pytest.mark.parametrize("is_mask", [False, True])
def test_unreadable_files_are_named(plan, tmp_path, broken, is_mask):
    file = plan[1].mask if is_mask else plan[0].source
    whole = file.read_bytes()
    file.write_bytes({"empty": b"", "text": b"<html>", "cut short": whole[: len(whole) // 2]}[broken])
    with pytest.raises(ValueError, match=rf"{file.name} can't be read \(.*get it anew"):
        write_layout(plan, tmp_path / "out")


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


@pytest.fixture
def mtd(tmp_path):
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


def test_the_layout_is_that_of_mvtec_ad(mtd, tmp_path):
    data = prepare_mtd(mtd, tmp_path / "out")
    assert data.defects == sorted(DEFECTS)
    assert data.num_images == {**{f"test/{kind}": 2 for kind in DEFECTS}, "test/good": 2, "train/good": 8}
    assert data.num_masks == dict.fromkeys(DEFECTS, 2)
    out = data.root
    assert sorted(path.name for path in out.iterdir()) == ["ground_truth", "test", "train"]
    assert sorted(path.name for path in (out / "ground_truth").iterdir()) == sorted(DEFECTS)
    published = imgs(mtd, "MT_Crack") / "exp1_num_7.jpg"
    assert (out / "test" / "MT_Crack" / "exp1_num_7.jpg").read_bytes() == published.read_bytes()


def test_masks_are_cut_at_half_their_brightness(mtd, tmp_path):
    prepare_mtd(mtd, tmp_path / "out")
    mask = cv2.imread(str(tmp_path / "out" / "ground_truth" / "MT_Fray" / "exp1_num_77.png"), cv2.IMREAD_UNCHANGED)
    expected = np.zeros((24, 20), np.uint8)
    expected[4:10, 4:9] = 255
    np.testing.assert_array_equal(mask, expected)


def test_black_masks_of_good_tiles_are_no_images(mtd, tmp_path):
    prepare_mtd(mtd, tmp_path / "out")
    good = names(tmp_path / "out" / "train" / "good") + names(tmp_path / "out" / "test" / "good")
    assert sorted(good) == sorted(GOOD)
    assert not list((tmp_path / "out").rglob("good/*.png"))


def test_the_draw_depends_on_the_seed_alone(mtd, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare_mtd(mtd, tmp_path / name, train_ratio=0.5, seed=seed)
    a, b, c = (names(tmp_path / name / "train" / "good") for name in "abc")
    assert a == b != c
    assert len(a) == len(c) == 5


@pytest.mark.parametrize("line", ["{}", "{}.jpg", "MT_Free/Imgs/{}.jpg", "MT_Free\\Imgs\\{}.png", "  {}.jpg  "])
def test_the_list_decides_who_trains(mtd, tmp_path, line):
    (tmp_path / "list.txt").write_text("# train\n" + "\n".join(line.format(stem) for stem in GOOD[:3]) + "\n\n")
    data = prepare_mtd(mtd, tmp_path / "out", train_list=tmp_path / "list.txt")
    assert names(data.root / "train" / "good") == sorted(GOOD[:3])
    assert names(data.root / "test" / "good") == sorted(GOOD[3:])


def test_discover_and_anomalib_read_mtd(mtd, tmp_path):
    data = prepare_mtd(mtd, tmp_path / "mtd")
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


def test_names_that_are_not_there_are_refused(mtd, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text(f"{GOOD[0]}.jpg\nexp1_num_77.jpg\n")
    with pytest.raises(ValueError, match=r"names 2 images, of which 1 are not in .*Imgs, such as \['exp1_num_77'\]"):
        prepare_mtd(mtd, tmp_path / "out", train_list=file)
    file.write_text("\n")
    with pytest.raises(ValueError, match="names 0 images"):
        prepare_mtd(mtd, tmp_path / "out", train_list=file)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        prepare_mtd(mtd, tmp_path / "out", train_list=tmp_path / "none.txt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 80])
def test_shares_lie_between_0_and_1(mtd, tmp_path, ratio):
    with pytest.raises(ValueError, match=f"`train_ratio` must lie between 0 and 1, got {ratio}"):
        prepare_mtd(mtd, tmp_path / "out", train_ratio=ratio)


def test_defects_of_mtd_need_masks(mtd, tmp_path):
    (imgs(mtd, "MT_Break") / "exp1_num_7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images of defects have no mask .*MT_Break.*exp1_num_7\.jpg"):
        prepare_mtd(mtd, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_folders_are_refused(mtd, tmp_path):
    (tmp_path / "holiday" / "beach").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"for MT_Free/Imgs and .*, but found beach"):
        prepare_mtd(tmp_path / "holiday", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        prepare_mtd(tmp_path / "none", tmp_path / "out")


def test_half_an_archive_is_refused_or_said(mtd, tmp_path, caplog):
    for path in imgs(mtd, "MT_Uneven").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"MT_Uneven.Imgs holds no \.jpg images"):
        prepare_mtd(mtd, tmp_path / "out")
    imgs(mtd, "MT_Uneven").rmdir()
    with caplog.at_level(logging.WARNING):
        data = prepare_mtd(mtd, tmp_path / "out")
    assert "lacks MT_Uneven" in caplog.text
    assert "MT_Uneven" not in data.defects
    for kind in DEFECTS[:-1]:
        imgs(mtd, kind).rename(imgs(mtd, kind).parent / "elsewhere")
    with pytest.raises(FileNotFoundError, match="found no kind of defect"):
        prepare_mtd(mtd, tmp_path / "other")


@pytest.fixture
def aebad(tmp_path):
    """Two images per class and domain; the same names everywhere, as published."""
    root = tmp_path / "AeBAD" / "AeBAD_S"
    for split, classes in (("train", ("good",)), ("test", CLASSES)):
        for class_name in classes:
            for number, domain in enumerate(DOMAINS[: 3 if split == "train" else 4]):
                folder = root / split / class_name / domain
                folder.mkdir(parents=True)
                for name in ("IMG_1.png", "IMG_10.png"):
                    image = np.full((20, 24, 3), 40 * number + CLASSES.index(class_name), np.uint8)
                    folder.joinpath(name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
                    mask = root / "ground_truth" / class_name / domain / name
                    if split == "test" and class_name != "good":
                        mask.parent.mkdir(parents=True, exist_ok=True)
                        pixels = np.zeros((20, 24), np.uint8)
                        pixels[2 : 4 + number] = 1
                        cv2.imwrite(str(mask), pixels)
    (root / "test" / "good" / "same" / "._IMG_1.png").write_bytes(b"of macOS")
    (root / "__MACOSX").mkdir()
    return tmp_path / "AeBAD"


def test_the_domain_goes_into_the_name(aebad, tmp_path):
    data = prepare_aebad(aebad, tmp_path / "aebad")
    assert data.defects == ["ablation", "breakdown", "fracture", "groove"]
    assert data.num_images == {**{f"test/{name}": 8 for name in CLASSES}, "train/good": 6}
    assert data.num_masks == dict.fromkeys(data.defects, 8)
    for class_name in CLASSES:
        for number, domain in enumerate(DOMAINS):
            image = read_image(data.root / "test" / class_name / f"{domain}_IMG_10.png")
            assert (image == 40 * number + CLASSES.index(class_name)).all()


def test_masks_follow_and_become_white(aebad, tmp_path):
    prepare_aebad(aebad, tmp_path / "aebad")
    for number, domain in enumerate(DOMAINS):
        mask = cv2.imread(str(tmp_path / "aebad" / "ground_truth" / "groove" / f"{domain}_IMG_1.png"), 0)
        assert np.unique(mask).tolist() == [0, 255]
        assert (mask > 0).sum() == 24 * (2 + number)


def test_discover_and_anomalib_read_aebad(aebad, tmp_path):
    data = prepare_aebad(aebad, tmp_path / "aebad")
    records = list_images(data.root / "test")
    assert len({record.key for record in records}) == 40
    assert sorted(set(read_labels(records, "folders"))) == list(CLASSES)
    module = MVTecAD(root=tmp_path, category="aebad", num_workers=0, val_split_mode="same_as_test")
    module.prepare_data()
    module.setup()
    assert (len(module.train_data), len(module.test_data)) == (6, 40)
    sizes = {
        item.image_path.rpartition("/")[2].partition("_")[0]: int(item.gt_mask.sum())
        for item in module.test_data
        if item.gt_label
    }
    assert sizes == {domain: 24 * (2 + number) for number, domain in enumerate(DOMAINS)}


@pytest.mark.parametrize("below", ["", "AeBAD_S"])
def test_the_folder_is_found_from_above(aebad, tmp_path, below):
    assert sum(prepare_aebad(aebad / below, tmp_path / "out").num_images.values()) == 46


def test_domains_can_be_chosen(aebad, tmp_path):
    data = prepare_aebad(aebad, tmp_path / "out", domains=["same", "view"])
    assert data.num_images["test/groove"] == 4
    assert data.num_images["train/good"] == 6
    assert {path.name.partition("_")[0] for path in (data.root / "test").rglob("*.png")} == {"same", "view"}
    with pytest.raises(ValueError, match=r"`domains` has \['veiw'\], but .*test has the domains \['background'"):
        prepare_aebad(aebad, tmp_path / "out", domains=["veiw"])


def test_masks_in_the_manner_of_mvtec_are_found(aebad, tmp_path):
    for mask in list((aebad / "AeBAD_S" / "ground_truth").rglob("IMG_1.png")):
        mask.rename(mask.with_name("IMG_1_mask.png"))
    data = prepare_aebad(aebad, tmp_path / "out")
    assert (data.root / "ground_truth" / "groove" / "same_IMG_1.png").is_file()


def test_defects_of_aebad_need_masks(aebad, tmp_path):
    (aebad / "AeBAD_S" / "ground_truth" / "groove" / "view" / "IMG_10.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images of defects have no mask .*groove.view.IMG_10\.png"):
        prepare_aebad(aebad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_layouts_are_refused(aebad, tmp_path):
    prepare_aebad(aebad, tmp_path / "done")
    with pytest.raises(FileNotFoundError, match=r"for train/good/<domain>.*but found ground_truth, test, train"):
        prepare_aebad(tmp_path / "done", tmp_path / "out")
    for name in ("ablation", "breakdown", "fracture", "groove"):
        folder = aebad / "AeBAD_S" / "test" / name
        folder.rename(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="for images of defects"):
        prepare_aebad(aebad, tmp_path / "out")
