# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
from anomalib.data import MVTecAD

from anomalib_ncd.data.labels import read_labels
from anomalib_ncd.data.prepare.published import prepare_aebad
from anomalib_ncd.regions.reading.images import read_image
from anomalib_ncd.regions.reading.listing import list_images

CLASSES = ("ablation", "breakdown", "fracture", "good", "groove")
DOMAINS = ("background", "illumination", "same", "view")


@pytest.fixture
def raw(tmp_path):
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


def test_the_domain_goes_into_the_name(raw, tmp_path):
    data = prepare_aebad(raw, tmp_path / "aebad")
    assert data.defects == ["ablation", "breakdown", "fracture", "groove"]
    assert data.num_images == {**{f"test/{name}": 8 for name in CLASSES}, "train/good": 6}
    assert data.num_masks == dict.fromkeys(data.defects, 8)
    for class_name in CLASSES:
        for number, domain in enumerate(DOMAINS):
            image = read_image(data.root / "test" / class_name / f"{domain}_IMG_10.png")
            assert (image == 40 * number + CLASSES.index(class_name)).all()


def test_masks_follow_and_become_white(raw, tmp_path):
    prepare_aebad(raw, tmp_path / "aebad")
    for number, domain in enumerate(DOMAINS):
        mask = cv2.imread(str(tmp_path / "aebad" / "ground_truth" / "groove" / f"{domain}_IMG_1.png"), 0)
        assert np.unique(mask).tolist() == [0, 255]
        assert (mask > 0).sum() == 24 * (2 + number)


def test_discover_and_anomalib_read_it(raw, tmp_path):
    data = prepare_aebad(raw, tmp_path / "aebad")
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
def test_the_folder_is_found_from_above(raw, tmp_path, below):
    assert sum(prepare_aebad(raw / below, tmp_path / "out").num_images.values()) == 46


def test_domains_can_be_chosen(raw, tmp_path):
    data = prepare_aebad(raw, tmp_path / "out", domains=["same", "view"])
    assert data.num_images["test/groove"] == 4
    assert data.num_images["train/good"] == 6
    assert {path.name.partition("_")[0] for path in (data.root / "test").rglob("*.png")} == {"same", "view"}
    with pytest.raises(ValueError, match=r"`domains` has \['veiw'\], but .*test has the domains \['background'"):
        prepare_aebad(raw, tmp_path / "out", domains=["veiw"])


def test_masks_in_the_manner_of_mvtec_are_found(raw, tmp_path):
    for mask in list((raw / "AeBAD_S" / "ground_truth").rglob("IMG_1.png")):
        mask.rename(mask.with_name("IMG_1_mask.png"))
    data = prepare_aebad(raw, tmp_path / "out")
    assert (data.root / "ground_truth" / "groove" / "same_IMG_1.png").is_file()


def test_defects_need_masks(raw, tmp_path):
    (raw / "AeBAD_S" / "ground_truth" / "groove" / "view" / "IMG_10.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images of defects have no mask .*groove.view.IMG_10\.png"):
        prepare_aebad(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_layouts_are_refused(raw, tmp_path):
    prepare_aebad(raw, tmp_path / "done")
    with pytest.raises(FileNotFoundError, match=r"for train/good/<domain>.*but found ground_truth, test, train"):
        prepare_aebad(tmp_path / "done", tmp_path / "out")
    for name in ("ablation", "breakdown", "fracture", "groove"):
        folder = raw / "AeBAD_S" / "test" / name
        folder.rename(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="for images of defects"):
        prepare_aebad(raw, tmp_path / "out")
