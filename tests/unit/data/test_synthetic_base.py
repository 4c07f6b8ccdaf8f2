# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging

import cv2
import numpy as np
import pytest
from anomalib.data import Folder

from anomalib_ncd.data import synthetic_base
from anomalib_ncd.data.images import find_normal_images, list_base, read_base_region
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.data.synthetic_base import least_anomalous, write_synthetic_base
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.reading.maps import MapPairs
from anomalib_ncd.regions.settings import PAPER_REGIONS, RegionSettings


@pytest.fixture(autouse=True)
def few(monkeypatch):
    paint(monkeypatch, "crack", "stain", count=3)


def paint(monkeypatch, *kinds, count):
    monkeypatch.setattr(synthetic_base, "KINDS", kinds)
    monkeypatch.setattr(synthetic_base, "NUM_PER_CLASS", count)


def write(folder, images, regions=None):
    return write_synthetic_base(folder, images, regions or RegionSettings())


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.fixture
def normal(tiny_run):
    return list_images(tiny_run.images / "good")


def test_a_base_folder_is_written(normal, tmp_path):
    records, names = list_base(write(tmp_path / "base", normal))
    assert names == ["crack", "stain"]
    assert [record.class_name for record in records] == ["crack"] * 3 + ["stain"] * 3
    for record in records:
        pixels, mask = read_base_region(record)
        assert mask.sum() >= 6
        assert mask.shape == pixels.shape[:2]


def test_regions_are_cut_as_novel_ones_are(tmp_path, monkeypatch):
    (tmp_path / "good").mkdir()
    cv2.imwrite(
        str(tmp_path / "good" / "0.png"), np.random.default_rng(0).integers(90, 110, (250, 200), dtype=np.uint8)
    )
    images = list_images(tmp_path / "good")
    paint(monkeypatch, "hole", count=3)
    for ratio, side in ((0.1, 50), (0.3, 150)):
        folder = write(tmp_path / str(ratio), images, RegionSettings(min_size_ratio=ratio))
        assert [cv2.imread(str(record.image.path)).shape[:2] for record in list_base(folder)[0]] == [(side, side)] * 3


def test_the_number_decides_and_nothing_else(normal, tmp_path):
    assert files_of(write(tmp_path / "b", normal)) == files_of(write(tmp_path / "a", normal))


def test_an_interrupted_run_goes_on(normal, tmp_path, monkeypatch):
    folder = tmp_path / "base"
    first = files_of(write(folder, normal))
    lost, kept = folder / "images" / "crack" / "001.png", folder / "images" / "stain" / "002.png"
    lost.unlink()
    before = kept.stat().st_mtime_ns
    assert files_of(write(folder, normal)) == first
    assert kept.stat().st_mtime_ns == before
    monkeypatch.setattr("anomalib_ncd.data.synthetic_base.paint_on_surface", None)
    write(folder, normal)


def test_other_settings_or_images_paint_anew(normal, tmp_path, monkeypatch):
    folder = tmp_path / "base"
    write(folder, normal)
    paint(monkeypatch, "hole", count=2)
    assert list_base(write(folder, normal))[1] == ["hole"]
    assert len(files_of(folder)) == 4
    before = files_of(folder)
    assert files_of(write(folder, normal[:2])) != before


def test_a_folder_of_something_else_is_left_alone(normal, tiny_run, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(FileExistsError, match="something else than painted base classes"):
        write(tmp_path, normal)


def test_tiny_and_large_images_are_painted_on(tmp_path, monkeypatch):
    paint(monkeypatch, "hole", count=1)
    for name, size_hw in (("tiny", (17, 30)), ("large", (1500, 2200))):
        image = np.random.default_rng(0).integers(90, 110, (*size_hw, 1), dtype=np.uint8)
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), image)
        records, _ = list_base(write(tmp_path / f"{name}_base", list_images(tmp_path / name)))
        for record in records:
            pixels, mask = read_base_region(record)
            assert mask.any()
            assert 16 <= min(pixels.shape[:2]) <= 256


@pytest.mark.parametrize("regions", [RegionSettings(), PAPER_REGIONS], ids=["elements", "mebin"])
def test_outside_of_a_strip_is_what_it_is_in_novel_regions(regions, tmp_path, monkeypatch):
    paint(monkeypatch, "scratch", count=3)
    (tmp_path / "good").mkdir()
    cv2.imwrite(str(tmp_path / "good" / "0.png"), np.full((64, 400), 120, np.uint8))
    records, _ = list_base(write(tmp_path / "base", list_images(tmp_path / "good"), regions))
    painted = [read_base_region(record) for record in records]
    left = [pixels for pixels, mask in painted if len(mask) > 64]
    assert left
    for pixels in left:
        is_black = (pixels == 0).all(axis=(1, 2))
        assert is_black.any() == (regions.method == "mebin")


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"Image .*broken\.png can't be read"):
        write(tmp_path / "base", list_images(tmp_path))


def test_normal_images_come_from_a_folder_or_a_datamodule(tiny_run):
    folder = tiny_run.images / "good"
    assert [record.key for record in find_normal_images(folder, tiny_run.images)] == [f"00{i}" for i in range(6)]
    source = Folder(
        "tiny", root=tiny_run.images, normal_dir="good", abnormal_dir="line", val_split_mode="none", num_workers=0
    )
    for given, images in ((None, source), (source, tiny_run.images)):
        found = find_normal_images(given, images)
        assert found
        assert {record.path.parent.name for record in found} == {"good"}
    assert find_normal_images(None, tiny_run.images) == []
    with pytest.raises(FileNotFoundError, match=r"nowhere\. Check the path given as `normal_images`"):
        find_normal_images(tiny_run.images / "nowhere", tiny_run.images)


def test_without_any_the_least_anomalous_images_will_do(tiny_run, caplog):
    images = list_images(tiny_run.images)
    table = RegionTable(images).build(MapPairs(tiny_run.anomaly_maps).pair(images), (0.2, 1.1), RegionSettings())
    with caplog.at_level(logging.INFO):
        chosen = least_anomalous(table)
    assert len(chosen) == 10
    assert sum(record.key.startswith("good") for record in chosen) == 6
    assert "10 images with the lowest scores" in caplog.text
