# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import csv

import cv2
import numpy as np
import pytest

from anomalib_ncd.synthetic.plates import DEFECT_KINDS, generate_dataset

SMALL = {
    "kinds": ["scratch", "hole", "stain"],
    "num_train_good": 2,
    "num_test_good": 2,
    "num_per_kind": 2,
    "num_mixed": 2,
    "size": 64,
    "num_per_base_kind": 2,
}


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def read_mask(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "plates"
    return generate_dataset(folder, **SMALL, anomaly_maps=True, base_kinds=["rust", "chip"])


def test_layout(dataset):
    images = {f"{kind}/{i:03d}" for kind in ("scratch", "hole", "stain", "mixed") for i in range(2)}
    good = {"good/000", "good/001"}
    base = {f"{kind}/{i:03d}.png" for kind in ("rust", "chip") for i in range(2)}
    expected = {
        "generated.json",
        "labels.csv",
        "defects.csv",
        "train/good/000.png",
        "train/good/001.png",
        *(f"test/{name}.png" for name in images | good),
        *(f"anomaly_maps/{name}.npy" for name in images | good),
        *(f"ground_truth/{name}_mask.png" for name in images),
        *(f"base/images/{name}" for name in base),
        *(f"base/masks/{name}" for name in base),
    }
    assert set(contents(dataset.root)) == expected


def test_maps_and_base_only_where_wanted(tmp_path):
    dataset = generate_dataset(tmp_path, **SMALL)
    assert dataset.anomaly_maps_dir is None
    assert dataset.base_dir is None
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"train", "test", "ground_truth"}


def test_files_have_the_formats_promised(dataset):
    image = cv2.imread(str(dataset.test_dir / "hole" / "000.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (64, 64, 3)
    mask = read_mask(dataset.ground_truth_dir / "hole" / "000_mask.png")
    assert mask.shape == (64, 64)
    assert set(np.unique(mask)) == {0, 255}
    anomaly_map = np.load(dataset.anomaly_maps_dir / "good" / "000.npy")
    assert anomaly_map.shape == (64, 64)
    assert anomaly_map.dtype == np.float32


def test_files_are_rgb_on_disk(tmp_path):
    dataset = generate_dataset(tmp_path, kinds=["rust"], num_per_kind=1, num_mixed=0, num_train_good=0, size=128)
    image = cv2.imread(str(dataset.test_dir / "rust" / "000.png"))  # OpenCV reads BGR
    blue, _, red = image[read_mask(dataset.ground_truth_dir / "rust" / "000_mask.png") > 0].mean(axis=0)
    assert red > blue + 20


def test_tables_agree_with_the_masks(dataset):
    labels = {row["image"]: row["class"] for row in rows_of(dataset.labels_csv)}
    assert set(labels) == {path.relative_to(dataset.test_dir).as_posix() for path in dataset.test_dir.rglob("*.png")}
    defects = rows_of(dataset.defects_csv)
    for image, name in labels.items():
        found = [row for row in defects if row["image"] == image]
        folder, stem = image.removesuffix(".png").split("/")
        assert len(found) == {"good": 0, "mixed": 2}.get(folder, 1)
        if folder == "good":
            assert name == "good"
            continue
        assert name == max(found, key=lambda row: int(row["area"]))["kind"]
        mask = read_mask(dataset.ground_truth_dir / folder / f"{stem}_mask.png") > 0
        assert sum(int(row["area"]) for row in found) == mask.sum()  # so the two defects don't overlap
        boxes = np.zeros_like(mask)
        for row in found:
            x0, y0, x1, y1 = (int(row[corner]) for corner in ("x0", "y0", "x1", "y1"))
            boxes[y0:y1, x0:x1] = True
            assert mask[y0:y1, x0].any()
            assert mask[y1 - 1, x0:x1].any()
        assert not (mask & ~boxes).any()


def test_base_crops_are_squares_around_whole_defects(dataset):
    for path in (dataset.base_dir / "images").rglob("*.png"):
        image = cv2.imread(str(path))
        mask = read_mask(dataset.base_dir / "masks" / path.relative_to(dataset.base_dir / "images"))
        assert image.shape[0] == image.shape[1] >= 0.2 * 64
        assert mask.shape == image.shape[:2]
        assert (mask > 0).any()


def test_same_settings_same_bytes(dataset, tmp_path):
    again = generate_dataset(tmp_path, **SMALL, anomaly_maps=True, base_kinds=["rust", "chip"])
    assert contents(again.root) == contents(dataset.root)


def test_other_seed_other_images(dataset, tmp_path):
    other = contents(generate_dataset(tmp_path, **SMALL, seed=1).root)
    ours = contents(dataset.root)
    assert all(other[name] != ours[name] for name in other if name.startswith(("train/", "test/")))


def test_images_do_not_depend_on_how_many_follow(dataset, tmp_path):
    more = {**SMALL, "num_train_good": 3, "num_test_good": 3, "num_per_kind": 3, "num_mixed": 3}
    longer = contents(generate_dataset(tmp_path / "more", **more).root)
    shorter = contents(dataset.root)
    alone = {**SMALL, "kinds": ["stain"], "num_mixed": 0}
    single = contents(generate_dataset(tmp_path / "alone", **alone).root)
    for name in shorter:
        if name.startswith(("train/", "test/", "ground_truth/")):
            assert longer[name] == shorter[name]
    assert single["test/stain/001.png"] == shorter["test/stain/001.png"]


def test_all_kinds_at_once(tmp_path):
    few = {"num_train_good": 0, "num_test_good": 0, "num_per_kind": 1, "num_mixed": 0, "size": 64}
    dataset = generate_dataset(tmp_path, kinds=DEFECT_KINDS, **few)
    assert [row["kind"] for row in rows_of(dataset.defects_csv)] == list(DEFECT_KINDS)


def test_finished_data_set_is_reused(tmp_path):
    first = generate_dataset(tmp_path / "set", **SMALL)
    marker = first.test_dir / "hole" / "000.png"
    marker.write_bytes(b"mine")
    assert generate_dataset(str(tmp_path / "set"), **SMALL) == first
    assert marker.read_bytes() == b"mine"


def test_other_settings_are_refused(tmp_path):
    generate_dataset(tmp_path, **SMALL)
    with pytest.raises(FileExistsError, match=r"other \['num_mixed', 'seed'\]"):
        generate_dataset(tmp_path, **{**SMALL, "num_mixed": 1}, seed=3)


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty and holds no finished"):
        generate_dataset(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ["spot", "hole"]}, r"`kinds` must name known defect kinds, got \['spot'\]; known are scratch"),
        ({"kinds": ["hole", "hole"]}, "each kind once"),
        ({"base_kinds": ["spot"]}, "`base_kinds` must name known"),
        ({"base_kinds": ["hole", "rust"]}, r"`base_kinds` must differ from `kinds`, but \['hole'\]"),
        ({"size": 63}, "`size` must be at least 64 pixels, got 63"),
        ({"num_per_kind": -1}, "`num_per_kind` must be 0 or more, got -1"),
        ({"seed": -1}, "`seed` must be 0 or more"),
        ({"kinds": ["hole"]}, "Mixed images need two `kinds`"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        generate_dataset(tmp_path / "set", **{**SMALL, **settings})
    assert not (tmp_path / "set").exists()
