# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from anomalib_ncd.metrics.facts import tell_facts
from anomalib_ncd.visualization.report import write_report
from anomalib_ncd.visualization.report.report import _regions_of_map

BY_REGION = [[0.05, 0.9, 0.05], [0.05, 0.05, 0.9], [0.9, 0.05, 0.05], [0.3, 0.4, 0.3]]
NAMES = ["normal", "dent", "scratch"]
EVIL = "<script>alert(1)</script>"
METRICS = {
    "image": {
        "count": 3,
        "nmi": 0.5,
        "ari": 0.25,
        "accuracy": 0.75,
        "macro_f1": 0.125,
        "defects": {"count": 2, "nmi": 1.0, "ari": 1.0, "accuracy": 1.0, "macro_f1": 1.0},
        "matching": {"normal": "good", "dent": "Beule", "scratch": "Riss"},
        "confusion": {"Riss": {"normal": 0, "dent": 1, "scratch": 3}, "Beule": {"normal": 2, "dent": 5, "scratch": 0}},
    },
}


def load(region):
    return np.full((24, 24, 3), 40 * region, np.uint8), np.zeros((24, 24), bool)


def write(folder, results, names=NAMES, **options):
    file = folder / "report.html"
    write_report(file, results.showing(images := results.image_results(names)), names, images, load, **options)
    return file.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Gathers the tags of a page with their attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += text

    def data(self):
        return json.loads(self.scripts[0])


def test_one_file_without_addresses(results_of, tmp_path):
    text = write(tmp_path, results_of(BY_REGION, range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert not re.search(r"https?:|url\(|@import|srcset", text)
    for tag, attributes in Elements(text).tags:
        assert attributes.get("src", "data:").startswith("data:"), tag
        assert attributes.get("href", "#").startswith(("#", "data:,")), tag


def test_every_picture_has_a_text(results_of, tmp_path):
    pictures = [a for tag, a in Elements(write(tmp_path, results_of(BY_REGION, range(4)))).tags if tag == "img"]
    assert len(pictures) >= 5
    assert all("alt" in picture for picture in pictures)
    assert all(picture["alt"] for picture in pictures)


def test_names_of_files_and_classes_are_only_text(results_of, tmp_path):
    metrics = {"image": METRICS["image"] | {"confusion": {EVIL: {EVIL: 1}}, "matching": {EVIL: EVIL}}}
    results = results_of(BY_REGION, range(4), keys=[EVIL, "</script><b>", '"onload="x', "&amp;"], labels=[1, 1, 1, 1])
    results.label_names[1] = EVIL
    metrics["facts"] = {"own_image": {"text": EVIL, "advice": EVIL}}
    text = write(tmp_path, results, ["normal", EVIL, EVIL], metrics=metrics, title=EVIL)
    page = Elements(text)
    assert [attributes.get("id") for tag, attributes in page.tags if tag == "script"] == ["report-data", None]
    assert not [tag for tag, _ in page.tags if tag == "b"]
    assert not [a for _, a in page.tags if "onload" in a]
    assert "alert(1)</script>" not in text
    assert page.data()["images"] == [EVIL, "</script><b>", '"onload="x', "&amp;"]
    assert page.data()["classes"][0]["name"] == EVIL


def test_only_the_script_of_the_page_may_run(results_of, tmp_path):
    page = Elements(write(tmp_path, results_of(BY_REGION, range(4))))
    [policy] = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)


def test_the_map_knows_all_regions(results_of, tmp_path):
    results = results_of(BY_REGION, [0, 1, 1, 2])
    data = Elements(write(tmp_path, results)).data()
    np.testing.assert_allclose(np.stack([data["x"], data["y"]], 1), results.region_position, atol=1e-4)
    assert [data["classes"][number]["name"] for number in data["classOf"]] == ["dent", "scratch", "normal", "dent"]
    assert data["imageOf"] == [0, 1, 1, 2]
    assert data["value"] == [0.9, 0.9, 0.9, 0.4]
    assert data["doubtful"] == [0, 0, 0, 1]
    assert data["classes"][-1] == {"name": "normal", "color": -1, "slot": "normal", "slots": ["normal"]}


def test_fields_start_with_the_given_names(results_of, tmp_path):
    page = Elements(write(tmp_path, results_of(BY_REGION, range(4)), ["normal", "dent", "dent"]))
    inputs = [attributes["value"] for tag, attributes in page.tags if tag == "input" and "value" in attributes]
    selected = [attributes["value"] for tag, attributes in page.tags if tag == "option" and "selected" in attributes]
    assert inputs == ["dent", ""]
    assert selected == ["class_1"]


def test_scores_and_confusion_stand_where_labels_are_known(results_of, tmp_path):
    text = write(tmp_path, results_of(BY_REGION, range(4)), metrics=METRICS)
    assert "0.125" in text
    header = re.search(r'<table class="confusion">.*?</thead>', text, re.DOTALL).group()
    assert re.findall(r'col">(\w+)<', header) == ["label", "scratch", "dent", "normal", "all"]
    cells = re.findall(r'<td class="([^"]+)" style="--share: ([\d.]+)">(.)</td>', text)
    assert cells == [
        *[("cell strong matched", "0.750", "3"), ("cell", "0.250", "1"), ("cell", "0.000", "·")],
        *[("cell", "0.000", "·"), ("cell strong matched", "0.714", "5"), ("cell", "0.286", "2")],
    ]
    assert 'id="scores"' not in write(tmp_path, results_of(BY_REGION, range(4)))
    assert 'id="scores"' not in write(tmp_path, results_of(BY_REGION, range(4)), metrics={"image": {"count": 0}})


def test_normal_is_scored_where_it_is_known(results_of, tmp_path):
    normal = {"false_alarms": 7, "predicted": 0, "recall": 0.0, "precision": None, "defects_lost": 0.125}
    metrics = {"image": METRICS["image"] | {"normal": normal}, "facts": {}}
    text = write(tmp_path, results_of(BY_REGION, range(4)), metrics=metrics)
    assert "False alarms set aside as normal" in text
    assert "<td>7</td><td>0.000</td><td></td><td>0.125</td>" in text


def test_unknown_regions_have_a_section_where_there_are_some(results_of, tmp_path):
    results = results_of(BY_REGION, range(4))
    text = write(tmp_path, results)
    assert 'id="unknown"' not in text
    assert 'href="#unknown"' not in text
    assert Elements(text).data()["unknown"] == [0, 0, 0, 0]
    results.batch.update(region_unknown=torch.tensor([False, True, False, False]))
    text = write(tmp_path, results)
    assert 'href="#unknown"' in text
    section = re.search(r'<section id="unknown".*?</section>', text, re.DOTALL).group()
    assert "1 region is unlike all of those" in section
    assert section.count("<figure") == 1
    assert Elements(text).data()["unknown"] == [0, 1, 0, 0]


def test_facts_that_are_off_come_first_with_their_advice(results_of, tmp_path):
    facts = tell_facts({"cluster_agreement": 0.9, "images_with_region": 0.25, "same_place": 0.02, "own_image": 0.5})
    text = write(tmp_path, results_of(BY_REGION, range(4)), metrics={"facts": facts})
    assert '<a href="#facts">What is known without labels</a>' in text
    assert "25% of the images have a region. <em>Where nothing was found" in text
    levels = re.findall(r'<li class="(\w+)">', text)
    assert levels == sorted(levels, key=["warning", "plain"].index)
    assert set(levels) == {"warning", "plain"}
    assert text.index("<em>The maps don&#39;t follow what is in their images.") < text.index('<li class="plain">')


@pytest.mark.parametrize("count", [1, 2])
def test_few_regions_are_enough(results_of, tmp_path, count):
    data = Elements(write(tmp_path, results_of(BY_REGION[:count], range(count)))).data()
    assert len(data["x"]) == count


def test_an_image_without_regions_is_no_trouble(results_of, tmp_path):
    results = results_of(BY_REGION[:1], [0])
    empty = {
        field.name: getattr(results.batch, field.name)[:0]
        for field in fields(results.batch)
        if field.name.startswith("region_") and getattr(results.batch, field.name) is not None
    }
    results = replace(results, batch=replace(results.batch, **empty), region_position=np.zeros((0, 2), np.float32))
    text = write(tmp_path, results)
    assert "No defects were found in 1 image." in text
    assert "Nothing found in 1 image<" in text
    assert Elements(text).data()["x"] == []


def test_clusters_have_no_normal_slot(results_of, tmp_path):
    hard = [[1, 0], [1, 0], [0, 1]]
    features = np.array([[1, 0], [1, 0.1], [0, 1]])
    results = results_of(hard, range(3), features=features, has_normal_slot=False)
    text = write(tmp_path, results, ["class_1", "class_2"])
    assert 'id="normal"' not in text
    assert "closest behind, at most a tenth of all." in text
    assert "normal" not in [one["name"] for one in Elements(text).data()["classes"]]


def test_the_map_samples_from_very_many_regions():
    assert _regions_of_map(10_000).tolist() == list(range(10_000))
    sample = _regions_of_map(25_000)
    assert len(sample) == len(set(sample.tolist())) == 10_000
    assert sample.max() > 20_000


def test_names_must_fit(results_of, tmp_path):
    with pytest.raises(ValueError, match="must name the K slots"):
        write(tmp_path, results_of(BY_REGION, range(4)), ["normal", "dent"])
    assert not list(tmp_path.iterdir())


def test_an_estimated_number_of_classes_is_shown_with_its_curve(results_of, tmp_path):
    results = results_of(BY_REGION, range(4))
    assert 'id="number"' not in write(tmp_path, results)
    curve = [[2, 0.25], [3, 0.75], [4, 0.5]]
    estimate = {"count": 3, "low": 3, "high": 4, "curve": curve, "method": f"a score {EVIL}"}
    text = write(tmp_path, replace(results, num_classes_estimate=estimate))
    assert EVIL not in text
    tags = Elements(text).tags
    assert ("a", {"href": "#number"}) in tags
    assert sum(tag == "circle" for tag, _ in tags) == 3
    assert sum(tag == "circle" and a.get("class") == "chosen" for tag, a in tags) == 1
    assert "3 classes, normal included, were estimated; between 3 and 4 are plausible." in text
    assert "3 classes: 0.750" in text
