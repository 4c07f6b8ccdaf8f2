# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import logging
import os
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest

from anomalib_ncd.data import region_table
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.mebin import fit_score_range
from anomalib_ncd.regions.reading.listing import list_images
from anomalib_ncd.regions.reading.maps import MapPairs, read_anomaly_map
from anomalib_ncd.regions.settings import RegionSettings

RANGE = (0.2, 1.1)
SETTINGS = RegionSettings(method="mebin")


class Source:
    """Images and maps of a run, and a table of them built in a folder."""

    def __init__(self, run, folder=None):
        self.run, self.folder = run, folder
        self.records = list_images(run.images)
        self.maps = MapPairs(run.anomaly_maps).pair(self.records)

    def build(self, score_range=RANGE, settings=SETTINGS):
        return RegionTable(self.records, self.folder).build(self.maps, score_range, settings)


class CountedBinarize:
    """Counts the maps that are binarised, and can fail at one of them."""

    def __init__(self, monkeypatch, fail_at=None):
        self.calls, self.fail_at = 0, fail_at
        self._original = region_table.cut_regions
        monkeypatch.setattr(region_table, "cut_regions", self)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.fail_at:
            msg = "killed"
            raise KeyboardInterrupt(msg)
        return self._original(*args, **kwargs)


@pytest.fixture
def source(own_tiny_run, tmp_path):
    return Source(own_tiny_run, tmp_path / "regions")


def assert_equal_tables(one, other):
    assert one.rows == other.rows
    assert one.sizes_hw == other.sizes_hw
    assert one.num_components == other.num_components
    assert one.peaks_xy == other.peaks_xy
    assert one.empty_images == other.empty_images
    for index in range(len(one)):
        for left, right in zip(one.load(index), other.load(index), strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def test_finished_images_are_adopted_under_other_keys(tiny_run, own_tiny_run, tmp_path):
    known, new = Source(tiny_run, tmp_path / "known"), Source(own_tiny_run, tmp_path / "new")
    table, target = known.build(), new.build()
    chosen, keys = known.records[4:9], [f"{record.key}~2" for record in known.records[4:9]]
    for _ in range(2):
        target.adopt(table, chosen, keys)
    lines = (tmp_path / "new" / "regions.jsonl").read_text().splitlines()
    assert len(lines) == len(new.records) + 5
    renamed = [replace(record, key=key) for record, key in zip(chosen, keys, strict=True)]
    assert_equal_tables(RegionTable.read(renamed, tmp_path / "new"), RegionTable.read(chosen, tmp_path / "known"))
    assert_equal_tables(new.build(), target)


def test_regions_on_disk_equal_those_in_memory(tiny_run, tmp_path):
    in_memory, on_disk = Source(tiny_run).build(), Source(tiny_run, tmp_path / "regions").build()
    assert_equal_tables(in_memory, on_disk)
    assert_equal_tables(in_memory, Source(tiny_run, tmp_path / "regions").build())


def test_every_image_has_regions_that_say_where_they_come_from(tiny_run):
    source = Source(tiny_run)
    table = source.build()
    assert len(table.sizes_hw) == len(source.records) == 18
    assert table.sizes_hw[0] == (64, 64)
    assert [row for image in range(18) for row in table.rows_of_image[image]] == list(range(len(table)))
    for image in range(18):
        rows = table.rows_of_image[image]
        assert rows
        assert [table.image_of[row] for row in rows] == [image] * len(rows)
    for index, row in enumerate(table.rows):
        pixels, mask = table.load(index)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*mask.shape, 3)
        assert mask.dtype == bool
        assert row.area == mask.sum()
        assert 0 <= row.score <= 1


def test_squares_are_cut_where_they_are(tiny_run):
    table = Source(tiny_run).build()
    for image, record in enumerate(table.images):
        if record.folder_name == "square":
            pixels, mask = table.load(table.rows_of_image[image][0])
            assert (pixels[mask] == 230).all()


def test_an_interrupted_build_goes_on(source, monkeypatch):
    counted = CountedBinarize(monkeypatch, fail_at=8)
    with pytest.raises(KeyboardInterrupt):
        source.build()
    counted.calls, counted.fail_at = 0, None
    table = source.build()
    assert counted.calls == 18 - 7
    counted.calls = 0
    assert_equal_tables(table, source.build())
    assert counted.calls == 0
    assert_equal_tables(table, Source(source.run).build())


def test_a_lost_line_break_does_no_harm(source, monkeypatch):
    records, maps = source.records, source.maps
    source.records, source.maps = records[:5], maps[:5]
    source.build()
    listing = source.folder / "regions.jsonl"
    listing.write_text(listing.read_text()[:-1])
    source.records, source.maps = records, maps
    source.build()
    counted = CountedBinarize(monkeypatch)
    source.build()
    assert counted.calls == 0


def test_a_line_that_was_cut_short_is_done_again(source, monkeypatch, caplog):
    expected = source.build()
    listing = source.folder / "regions.jsonl"
    text = listing.read_text()
    listing.write_text(text[:-25])
    counted = CountedBinarize(monkeypatch)
    with caplog.at_level(logging.WARNING):
        table = source.build()
    assert "regions.jsonl" in caplog.text
    assert counted.calls == 1
    assert_equal_tables(table, expected)
    caplog.clear()
    assert_equal_tables(source.build(), expected)
    assert counted.calls == 1
    assert not caplog.records
    assert [json.loads(line)["image"] for line in listing.read_text().splitlines()] == [r.key for r in source.records]


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": replace(SETTINGS, padding_ratio=0.5)},
        {"settings": replace(SETTINGS, padding_ratio=0.3)},
        {"settings": replace(SETTINGS, min_size_ratio=0.2)},
        {"settings": replace(SETTINGS, sample_rate=2)},
        {"score_range": (0.3, 1.1)},
    ],
)
def test_other_settings_cut_everything_anew(source, monkeypatch, changed):
    source.build()
    counted = CountedBinarize(monkeypatch)
    table = source.build(**changed)
    assert counted.calls == 18
    assert_equal_tables(table, Source(source.run).build(**changed))


def test_what_has_changed_on_disk_is_cut_anew(source, monkeypatch):
    first = source.build()
    anomaly_map = read_anomaly_map(source.maps[10])
    np.save(source.maps[10], anomaly_map[::-1])
    image = source.records[3].path
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1_000_000_000))
    counted = CountedBinarize(monkeypatch)
    table = source.build()
    assert counted.calls == 2
    assert table.rows != first.rows
    assert_equal_tables(table, Source(source.run).build())


def test_an_older_file_in_the_place_of_an_image_is_cut_anew(source, monkeypatch):
    source.build()
    os.utime(source.records[3].path, ns=(7, 7))
    os.utime(source.maps[5], ns=(7, 7))
    counted = CountedBinarize(monkeypatch)
    source.build()
    assert counted.calls == 2


def test_maps_of_two_kinds_are_refused(source):
    grey = (read_anomaly_map(source.maps[4]) * 100).astype(np.uint8)
    np.save(source.maps[4], grey)
    for _ in range(2):  # kept entries count as well
        with pytest.raises(ValueError, match=r"000\.npy holds float, .*004\.npy uint8. Save all of them alike"):
            source.build()


def test_maps_of_new_images_in_other_units_than_those_of_the_run_are_warned_of_once(source, caplog):
    def build(kind, score_range=(-5.0, -1.0)):
        RegionTable(source.records).build(source.maps, score_range, SETTINGS, kind)

    build(None)  # a run of its own
    build("float", RANGE)
    assert "other units" not in caplog.text
    build("float")
    assert caplog.text.count("they are in other units than those of the run") == 1


def test_a_map_whose_sides_are_swapped_is_named(source):
    file = source.records[0].path
    cv2.imwrite(str(file), np.zeros((32, 64, 3), np.uint8))
    np.save(source.maps[0], np.zeros((64, 32), np.float32))
    with pytest.raises(ValueError, match=r"map .*000\.npy of .*000\.png .* is 64x32 pixels and its .* map 32x64"):
        source.build()


def test_maps_of_other_proportions_are_said(source, caplog):
    source.build()
    assert not caplog.records
    np.save(source.maps[0], np.zeros((20, 40), np.float32))
    np.save(source.maps[1], np.zeros((32, 32), np.float32))
    source.build()
    [record] = caplog.records
    assert "1 anomaly maps have other proportions than their images" in record.message


@pytest.mark.parametrize(("highest", "bits"), [(1023, 10), (4095, 12), (16383, 14), (20000, None)])
def test_images_of_another_bit_depth_are_said(tiny_run, tmp_path, caplog, highest, bits):
    file = tmp_path / "images" / "000.png"
    file.parent.mkdir()
    cv2.imwrite(str(file), np.linspace(0, highest, 64 * 64).reshape(64, 64).astype(np.uint16))
    table = RegionTable(list_images(file.parent))
    table.build([tiny_run.anomaly_maps / "line" / "000.npy"], RANGE, SETTINGS)
    assert [f"--regions.bit_depth {bits}" in record.message for record in caplog.records] == [True] * (bits is not None)
    caplog.clear()
    table = RegionTable(table.images).build(
        [tiny_run.anomaly_maps / "line" / "000.npy"], RANGE, replace(SETTINGS, bit_depth=bits or 15)
    )
    assert not caplog.records
    assert bits is None or max(table.load(row)[0].max() for row in range(len(table))) > 200


def test_long_names_have_shorter_crops(source):
    long = "x" * 248
    record = source.records[3]
    renamed = replace(record, path=record.path.with_name(f"{long}.png"), key=f"good/{long}")
    record.path.rename(renamed.path)
    source.records[3] = renamed
    table = source.build()
    assert_equal_tables(table, RegionTable.read(source.records, source.folder))


def test_an_image_that_came_later_is_added(source, monkeypatch):
    records, maps = source.records, source.maps
    source.records, source.maps = records[:5], maps[:5]
    source.build()
    source.records, source.maps = records, maps
    counted = CountedBinarize(monkeypatch)
    assert_equal_tables(source.build(), Source(source.run).build())
    assert counted.calls == 13 + 18


def test_a_missing_crop_is_named(source):
    table = source.build()
    key = source.records[4].key
    (source.folder / "masks" / f"{key}_region0.png").unlink()
    with pytest.raises(ValueError, match=rf"Region 0 of {key} is gone from .*delete the folder"):
        table.load(table.rows_of_image[4][0])


def test_a_finished_table_is_read_without_maps(source):
    built = source.build()
    assert_equal_tables(RegionTable.read(source.records, source.folder), built)


def test_a_table_that_is_gone_is_named(source, tmp_path):
    source.build()
    with pytest.raises(
        FileNotFoundError, match=r"nowhere lacks the regions of 'good/000'; run `anomalib-ncd discover`"
    ):
        RegionTable.read(source.records, tmp_path / "nowhere")
    more = [*source.records, replace(source.records[0], key="good/new")]
    with pytest.raises(FileNotFoundError, match="lacks the regions of 'good/new'"):
        RegionTable.read(more, source.folder)


def test_maps_and_images_must_be_as_many(source):
    source.maps = source.maps[:-1]
    with pytest.raises(ValueError, match="shorter"):
        source.build()


def test_regions_are_those_of_the_authors(whole_golden_dir, data_dir):
    golden = json.loads((whole_golden_dir / "crops.json").read_text())
    records = [record for record in list_images(data_dir / "mtd" / "test") if record.key in golden]
    assert len(records) == len(golden) == 583
    maps = MapPairs(data_dir / "mtd_anomaly_maps").pair(records)
    score_range = fit_score_range(read_anomaly_map(path) for path in maps)
    table = RegionTable(records).build(maps, score_range, SETTINGS)
    for image, record in enumerate(records):
        expected = golden[record.key]
        rows = [table.rows[row] for row in table.rows_of_image[image]]
        assert list(table.sizes_hw[image]) == expected["image_hw"], record.key
        assert table.num_components[image] == expected["est_anomaly_num"], record.key
        assert [list(row.box_xyxy) for row in rows] == expected["boxes"], record.key
        assert [row.area for row in rows] == expected["mask_area"], record.key
        np.testing.assert_allclose([row.score for row in rows], expected["scores"], atol=1e-3, err_msg=record.key)


def test_a_table_is_pickled_for_workers(tiny_run):
    table = Source(tiny_run).build()
    copy = pickle.loads(pickle.dumps(table))  # noqa: S301
    assert copy.fingerprint == table.fingerprint
    assert copy.rows == table.rows
