# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Lines of docs/guides/public_data.md that make label files of VisA and Real-IAD, on small trees in their layout."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from anomalib.data import RealIAD, Visa

from anomalib_ncd import NcdDataModule

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "public_data.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_snippet(word):
    [snippet] = [snippet for snippet in SNIPPETS if word in snippet]
    exec(snippet, {})  # noqa: S102 - the documentation's own lines


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 20), 99, np.uint8))


def labels_of(images, here, file, normal_label):
    """Class name by key, through the datamodule; maps are found, too."""
    module = NcdDataModule(images, here / "maps", labels=file, normal_label=normal_label)
    module.prepare_data()
    for key in (
        "train",
        "good/0002",
        "bad/000",
        "bad/001",
        *(f"NG/BX/S0002/usb_{view}" for view in (1, 2)),
        "OK/S1/usb",
    ):
        (here / "maps" / key).parent.mkdir(parents=True, exist_ok=True)
        np.save(here / "maps" / f"{key}.npy", np.eye(20, dtype=np.float32))
    module.setup()
    assert module.class_names[0] == normal_label
    return {record.key: module.class_names[i] for record, i in zip(module.records, module.class_ids, strict=True)}


def test_visa(here):
    root = here / "datasets" / "visa"
    rows = [
        ("train", "normal", "Normal/0001.JPG", "", "normal"),
        ("test", "normal", "Normal/0002.JPG", "", "normal"),
        ("test", "anomaly", "Anomaly/000.JPG", "000.png", "bent"),
        ("test", "anomaly", "Anomaly/001.JPG", "001.png", "bent,melt"),
    ]
    for _, _, image, mask, _ in rows:
        picture(root / "pcb1" / "Data" / "Images" / image)
        if mask:
            picture(root / "pcb1" / "Data" / "Masks" / "Anomaly" / mask)
    (root / "split_csv").mkdir()
    with (
        (root / "split_csv" / "1cls.csv").open("w", newline="") as split,
        (root / "pcb1" / "image_anno.csv").open("w", newline="") as kinds,
    ):
        csv.writer(split).writerow(["object", "split", "label", "image", "mask"])
        csv.writer(kinds).writerow(["image", "label", "mask"])
        for part, label, image, mask, kind in rows:
            mask_path = f"pcb1/Data/Masks/Anomaly/{mask}" if mask else ""
            csv.writer(split).writerow(["pcb1", part, label, f"pcb1/Data/Images/{image}", mask_path])
            csv.writer(kinds).writerow([f"pcb1/Data/Images/{image}", kind, mask_path])
    run_snippet("image_anno")
    labels = labels_of(Visa(root, "pcb1", num_workers=0), here, "visa_labels.csv", "good")
    assert labels == {"good/0002": "good", "bad/000": "bent", "bad/001": "bent,melt"}


def test_real_iad(here):
    root = here / "datasets" / "Real-IAD"
    train, good = (
        {"image_path": f"OK/{part}/usb.jpg", "mask_path": None, "anomaly_class": "OK"} for part in ("S0", "S1")
    )
    bad = [
        {"image_path": f"NG/BX/S0002/usb_{view}.jpg", "mask_path": f"NG/BX/S0002/usb_{view}.png", "anomaly_class": "BX"}
        for view in (1, 2)
    ]
    for sample in (train, good, *bad):
        picture(root / "realiad_1024" / "audiojack" / sample["image_path"])
    file = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"meta": {}, "train": [train], "test": [good, *bad]}))
    run_snippet("anomaly_class")
    images = RealIAD(root, "audiojack", resolution=1024, test_split_mode="from_dir", num_workers=0)
    assert labels_of(images, here, "real_iad_labels.csv", "OK") == {
        "OK/S1/usb": "OK", "NG/BX/S0002/usb_1": "BX", "NG/BX/S0002/usb_2": "BX",
    }  # fmt: skip
