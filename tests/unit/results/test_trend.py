# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import time
from datetime import datetime

import numpy as np
import pytest

from anomalib_ncd.models.rejection import rejection_threshold
from anomalib_ncd.results.trend import ImageGroup, read_trend, unknown_limit

ABOUT = {"classifier": "a", "class_names": ["good", "dent"], "normal": "good", "false_reject_rate": 0.02}
RUN = np.linspace(0.3, 0.9, 140).tolist()
FIRST, SECOND = "2026-03-01T12:00:00", "2026-03-02T12:00:00"


@pytest.fixture(autouse=True)
def clock_of_greenwich(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    if hasattr(time, "tzset"):
        time.tzset()


def result(kind="dent", modified=FIRST, unknown=(False,), areas=(9,), **values):
    local = datetime.fromisoformat(modified).astimezone().isoformat()
    regions = [
        {"area": area, "unknown": flag, "neighbour_similarity": 0.2 if flag else 0.6}
        for area, flag in zip(areas, unknown, strict=True)
    ]
    found = {"class": kind, "normal": kind == "good", "unknown": bool(unknown and unknown[0]), "error": None}
    return {**found, "modified": local, "regions": regions, **values}


def write(folder, results, **about):
    folder.mkdir()
    (folder / "classifier.json").write_text(json.dumps({**ABOUT, "similarities": RUN, **about}))
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in results))
    return folder


def test_images_are_counted_by_day_and_kind(tmp_path):
    failed = {"image": "c.png", "error": "broken", "modified": None}
    days = [result(modified=SECOND), result("good", unknown=(), areas=()), result(), result(unknown=(True,))]
    trend = read_trend([write(tmp_path / "a", [*days, failed])])
    assert [group.name for group in trend.groups] == ["2026-03-01", "2026-03-02"]
    assert trend.groups[0].kinds == {"good": 1, "dent": 1, "unknown": 1}
    assert (len(trend.groups[0].similarities), trend.groups[0].num_unknown) == (2, 1)
    assert trend.kinds[0] == "dent"


@pytest.mark.parametrize(
    ("hour", "begin"),
    [("06", "2026-03-01 06:00"), ("13", "2026-03-01 06:00"), ("23", "2026-03-01 22:00"), ("05", "2026-02-28 22:00")],
)
def test_a_shift_is_named_by_its_begin(tmp_path, hour, begin):
    folder = write(tmp_path / "a", [result(modified=f"2026-03-01T{hour}:30:00")])
    assert [group.name for group in read_trend([folder], "shift").groups] == [begin]


def test_each_folder_is_a_batch_in_the_order_given(tmp_path):
    folders = [write(tmp_path / name, [result()] * count) for name, count in (("b", 2), ("a", 1))]
    assert [(group.name, group.num_images) for group in read_trend(folders, "batch").groups] == [("b", 2), ("a", 1)]


def test_only_the_largest_region_with_a_mask_is_judged(tmp_path):
    odd = result(unknown=(True, False, True), areas=(0, 9, 4))
    [group] = read_trend([write(tmp_path / "a", [odd])]).groups
    assert (len(group.similarities), group.num_unknown) == (1, 0)


def test_an_alarm_where_more_is_unknown_than_chance_explains(tmp_path):
    limit = unknown_limit(50, 140, 0.02, 0.0005)
    few, many = ([result(unknown=(True,))] * count + [result()] * (50 - count) for count in (limit, limit + 1))
    assert not read_trend([write(tmp_path / "few", few)]).groups[0].has_drifted
    assert read_trend([write(tmp_path / "many", many)]).groups[0].has_drifted
    [group] = read_trend([write(tmp_path / "none", many, false_reject_rate=None, similarities=None)]).groups
    assert group.limit is None
    assert not group.has_drifted


def group_of(similarities, run, rate=0.02):
    group = ImageGroup("a", similarities=similarities.tolist())
    group.num_unknown = int((similarities < rejection_threshold(run, rate)).sum())
    return group


@pytest.mark.parametrize(("num_references", "num_images"), [(140, 60), (30, 100), (1000, 25)])
def test_false_alarms_stay_below_their_rate(num_references, num_images):
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(1000):  # a run and a group of new images of the same kinds
        run = rng.random(num_references)
        group = group_of(rng.random(num_images), run)
        group.compare(run, 0.02, false_alarm_rate=0.05)
        alarms += group.has_drifted
    assert 0.02 < alarms / 1000 <= 0.06


@pytest.mark.parametrize("shift", ["all a little less alike", "a fifth like none"])
def test_the_alarm_sees_regions_that_moved_away_from_the_run(shift):
    rng, seen = np.random.default_rng(1), 0
    for _ in range(300):
        run, new = rng.normal(size=140), rng.normal(size=60)
        if shift == "all a little less alike":
            new -= 1
        else:
            new[:12] -= 9
        group = group_of(new, run)
        group.compare(run, 0.02, false_alarm_rate=0.001)
        seen += group.has_drifted
    assert seen / 300 > 0.95


def test_results_of_several_classifiers_or_of_none_are_refused(tmp_path):
    folders = [write(tmp_path / "a", [result()]), write(tmp_path / "b", [result()], classifier="b")]
    with pytest.raises(ValueError, match="b holds results of another classifier than"):
        read_trend(folders)
    with pytest.raises(FileNotFoundError, match=r"holds no classifier\.json"):
        read_trend([tmp_path])
    with pytest.raises(ValueError, match="could be used"):
        read_trend([write(tmp_path / "c", [])])
    with pytest.raises(ValueError, match="`false_alarm_rate` must be above 0"):
        read_trend(folders, false_alarm_rate=0)


def test_example_of_unknown_limit():
    assert unknown_limit(100, num_references=500, reject_rate=0.02, false_alarm_rate=0.001) == 8
