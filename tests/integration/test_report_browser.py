# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The report in a real, headless browser."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from anomalib_ncd import NcdDataModule
from anomalib_ncd.cli.main import main
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.class_slots import ClassSlots
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.results.run_results import RunResults, digest_of_classes
from anomalib_ncd.runs.files import gather_results, write_run_files
from anomalib_ncd.visualization.report import map_regions, write_report

SLOTS = ["normal", "class_1", "class_2", "class_3"]
EVIL = "<img src=x onerror=alert(1)>"


class Tab:
    """A page of the browser that notes what goes wrong and what is asked of the network."""

    def __init__(self, context, file):
        self.page = context.new_page()
        self.troubles, self.requests = [], []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.troubles.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def hover(self, region):
        self.page.locator("#map").scroll_into_view_if_needed()
        box = self.page.locator("#map").bounding_box()
        place = self.page.evaluate("region => report.position(region)", region)
        self.page.mouse.move(box["x"] + place["x"], box["y"] + place["y"])

    def assert_quiet(self, file):
        assert self.troubles == []
        assert [url for url in self.requests if not url.startswith(("data:", "blob:"))] == [file.as_uri()]


@pytest.fixture(scope="module")
def browser():
    """Headless chromium; tests skip where none is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [test]")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs a browser: install chromium with the system's package manager")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_report(browser):
    """Opens a report in a tab of its own, by default at 1280 pixels in light colours."""
    contexts = []

    def open_file(file, **options):
        options = {"viewport": {"width": 1280, "height": 900}, "accept_downloads": True} | options
        contexts.append(browser.new_context(**options))
        return Tab(contexts[-1], file)

    yield open_file
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """Folder of a run with hand-made predictions (lines, squares, and what is good) and a checkpoint."""
    output = tmp_path_factory.mktemp("finished") / "run"
    data = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, labels="folders", work_dir=output)
    batch = next(iter(data.test_dataloader())).without_pixels()
    regions = torch.full((len(batch.region_class_id), 4), 0.02)
    regions[torch.arange(len(regions)), batch.region_class_id] = 0.94
    regions[-1] = torch.tensor([0.0, 0.1, 0.5, 0.4])
    features = regions + torch.rand(regions.shape, generator=torch.Generator().manual_seed(0)) / 10
    merging = RegionMerging(tuple(SLOTS), 0)
    batch.update(region_feature=features).with_predictions(regions, merging)
    results = gather_results([batch], data, merging, output)
    results.save(output / "results.npz")
    write_run_files(output, results, SLOTS)
    own = {"slots": ClassSlots((), 4).plain(), "describer": "plain_features"}
    torch.save({"anomalib_ncd": {**own, "num_classes_estimate": None, "region_settings": None}}, output / "model.ckpt")
    return output


def ring_of_regions(count):
    """Results of many regions in eight groups."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 8, count)
    probabilities = torch.softmax(torch.tensor(np.eye(8)[group] * 5 + rng.normal(size=(count, 8))), 1).float()
    features = np.eye(8)[group] * 4 + rng.normal(size=(count, 8))
    batch = NcdBatch(
        image_path=[f"/nowhere/{number}.png" for number in range(count)],
        image_size=torch.full((count, 2), 64),
        image=None,
        region_mask=None,
        region_image_index=torch.arange(count),
        region_box_xyxy=torch.zeros(count, 4),
        region_score=torch.rand(count),
        region_area=torch.ones(count, dtype=torch.long),
        region_feature=torch.tensor(features).float(),
    )
    slots = ["normal", *(f"class_{number}" for number in range(1, 8))]
    batch.with_predictions(probabilities, RegionMerging(tuple(slots), 0))
    keys = [f"{EVIL}/{number}" for number in range(count)]
    return RunResults(batch, keys, slots, "regions", map_regions(features), [], 0), slots


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_it_renders_without_errors_and_without_network(open_report, finished, width, scheme):
    file = finished / "report.html"
    tab = open_report(file, viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    assert tab.page.locator("article.card").count() == 3
    assert tab.page.get_by_role("heading", name="Discovered classes").is_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    broken = tab.page.evaluate("[...document.images].filter(i => !(i.complete && i.naturalWidth)).length")
    assert broken == 0
    ink, paper = tab.page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    brightness = [sum(map(int, color[4:-1].split(","))) for color in (ink, paper)]
    assert (brightness[0] < brightness[1]) == (scheme == "light")
    tab.assert_quiet(file)


def test_pointing_at_a_region_shows_its_crop(open_report, finished):
    tab = open_report(finished / "report.html")
    assert tab.page.locator("#tip").is_hidden()
    tab.hover(4)
    assert tab.page.locator("#tip").is_visible()
    with (finished / "regions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    text = tab.page.locator("#tip-text").inner_text()
    assert rows[4]["class"] in text
    assert "/".join(rows[4]["image"].split("/")[-2:]).removesuffix(".png") in text
    pixels = "[...document.getElementById('tip-crop').getContext('2d').getImageData(0, 0, 144, 144).data]"
    shown = np.array(tab.page.evaluate(pixels)).reshape(144, 144, 4)
    assert (shown[..., 3] == 255).all()
    assert shown[..., :3].std() > 1


def test_unknown_regions_are_marked_on_the_map(open_report, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    results = RunResults.load(run / "results.npz")
    is_unknown = torch.arange(len(results.region_position)) == 4
    results.batch.update(region_unknown=is_unknown)
    write_run_files(run, results, SLOTS)
    tab = open_report(run / "report.html")
    assert tab.page.locator("#unknown figure").count() == 1
    tab.hover(4)
    assert "unknown" in tab.page.locator("#tip-text").inner_text().splitlines()
    tab.hover(3)
    assert "unknown" not in tab.page.locator("#tip-text").inner_text().splitlines()


def test_the_map_can_be_used_with_the_keyboard(open_report, finished):
    file = finished / "report.html"
    tab = open_report(file)
    tab.page.locator("#map").focus()
    seen = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "ArrowDown"):
        tab.page.keyboard.press(key)
        seen.add(tab.page.locator("#map-status").inner_text())
    assert len(seen) > 1
    assert all(any(name in text for name in SLOTS) for text in seen)
    before = tab.page.evaluate("report.position(0)")
    tab.page.keyboard.press("+")
    tab.page.wait_for_timeout(50)
    assert tab.page.locator("#tip").is_hidden()
    assert tab.page.evaluate("report.position(0)") != before
    tab.page.get_by_role("button", name="Show all").click()
    tab.page.wait_for_timeout(50)
    assert tab.page.evaluate("report.position(0)") == before
    tab.page.locator("#legend button").first.click()
    assert tab.page.locator("#legend button").first.get_attribute("aria-pressed") == "false"
    tab.assert_quiet(file)


def test_names_make_the_round_trip(open_report, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    tab = open_report(run / "report.html")
    tab.page.get_by_label("Name of class_1", exact=True).fill(f"  Kratzer {EVIL} ")
    tab.page.get_by_label("class_3 is the same as").select_option("class_2")
    tab.page.get_by_label("Name of class_2", exact=True).fill("Fleck")
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save corrections.json").click()
    assert download.value.suggested_filename == "corrections.json"
    saved = tmp_path / "from_browser.json"
    download.value.save_as(saved)
    name = f"Kratzer {EVIL}"
    expected = {"names": {"class_1": name, "class_2": "Fleck"}, "same": [["class_2", "class_3"]]}
    content = json.loads(saved.read_text())
    assert content == {**expected, "of": digest_of_classes(RunResults.load(run / "results.npz"))}

    main(["name", str(run), "--names", str(saved)])
    with (run / "predictions.csv").open(newline="") as stream:
        classes = [row["class"] for row in csv.DictReader(stream)]
    assert classes == ["normal"] * 6 + [name] * 6 + ["Fleck"] * 6
    names = ["normal", name, "Fleck", "Fleck"]
    assert torch.load(run / "model.ckpt", weights_only=True)["anomalib_ncd"]["slots"]["given_names"] == names

    again = open_report(run / "report.html")
    assert again.page.locator("article h3").all_inner_texts() == [name, "Fleck"]
    assert again.page.get_by_label("Name of class_2", exact=True).input_value() == "Fleck"
    assert again.page.get_by_label("class_3 is the same as").input_value() == "class_2"
    assert again.page.locator("#legend .name").all_inner_texts() == [name, "Fleck", "normal"]
    with again.page.expect_download() as download:
        again.page.get_by_role("button", name="Save corrections.json").click()
    download.value.save_as(saved)
    assert json.loads(saved.read_text()) == content
    again.assert_quiet(run / "report.html")
    tab.assert_quiet(run / "report.html")


def test_names_that_would_be_refused_are_not_saved(open_report, finished):
    tab = open_report(finished / "report.html")
    field, status = tab.page.get_by_label("Name of class_1", exact=True), tab.page.locator("#save-status")
    refused = {"normal": "choose “same as normal”", "class_2": "choose “same as class_2”", "a; b": "holds “;”"}
    for name, advice in refused.items():
        field.fill(name)
        assert advice in status.inner_text()
        tab.page.get_by_role("button", name="Save corrections.json").click()
        assert advice in status.inner_text()
    field.fill("dent")
    assert "1 named" in status.inner_text()
    # Two classes can't be the same as each other in a circle.
    tab.page.get_by_label("class_1 is the same as").select_option("class_2")
    tab.page.get_by_label("class_2 is the same as").select_option("class_1")
    assert tab.page.get_by_label("class_1 is the same as").input_value() == ""
    assert "same: class_1 = class_2" in status.inner_text()


def kind_of(tab, region):
    return tab.page.evaluate("region => report.data.images[report.data.imageOf[region]]", region).split("/")[0]


def select(tab, regions):
    """Select regions on the map, one by one."""
    for region in regions:
        tab.hover(region)
        tab.page.mouse.down()
        tab.page.mouse.up()


def save_from(tab, file):
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save corrections.json").click()
    download.value.save_as(file)
    return json.loads(file.read_text())


def test_the_whole_way_from_the_report_to_other_tools(open_report, tiny_run, clustered_run, tmp_path):
    file, output = tmp_path / "corrections.json", tmp_path / "refined"
    tab = open_report(clustered_run / "report.html", offline=True)
    tiles = tab.page.locator("#first .thumb")
    of_kind = {"good": [], "line": [], "square": []}
    for place in range(tiles.count()):
        of_kind[kind_of(tab, int(tiles.nth(place).get_attribute("data-region")))].append(place)
    for kind, places in of_kind.items():  # four of each: twelve regions
        for place in places[:4]:
            tiles.nth(place).click()
        assert "4 regions selected" in tab.page.locator("#selection").inner_text()
        if kind == "good":
            tab.page.get_by_role("button", name="Normal, a false alarm").click()
        else:
            tab.page.get_by_label("Name of a new class").fill(f"{kind} {EVIL}")
            tab.page.get_by_role("button", name="New class").click()
    # Split what is left of a class, and put one of its groups elsewhere.
    tab.page.locator(".split summary").first.click()
    tab.page.locator(".split").first.locator(".group").nth(1).wait_for()
    tab.page.locator(".split").first.get_by_role("button", name="Select all of group 1").click()
    tab.page.get_by_role("button", name="Clear").click()
    assert "12 corrected" in tab.page.locator("#save-status").inner_text()
    said = save_from(tab, file)["regions"]
    assert len(said) == 12
    assert {one["class"] for one in said} == {"normal", f"line {EVIL}", f"square {EVIL}"}
    assert "anomalib-ncd refine run --corrections" in tab.page.locator("#save-status").inner_text()
    tab.assert_quiet(clustered_run / "report.html")

    main(["refine", str(clustered_run), "--corrections", str(file), "--output", str(output)])
    flags = ["--images", str(tiny_run.images), "--anomaly_maps", str(tiny_run.anomaly_maps)]
    main(["classify", str(output), *flags, "--output", str(tmp_path / "classified")])
    for folder in (output, tmp_path / "classified"):
        with (folder / "predictions.csv").open(newline="") as stream:
            found = {row["image"]: row["class"] for row in csv.DictReader(stream)}
        wanted = {"good": "normal", "line": f"line {EVIL}", "square": f"square {EVIL}"}
        assert found == {image: wanted[image.split("/")[-2]] for image in found}
    main(["export", str(output), "--output", str(tmp_path / "coco")])
    categories = json.loads((tmp_path / "coco" / "annotations.json").read_text())["categories"]
    assert {one["name"] for one in categories} >= {f"line {EVIL}", f"square {EVIL}"}

    again = open_report(output / "report.html")
    assert again.page.evaluate("report.corrected.size") == 12
    again.assert_quiet(output / "report.html")


def test_saved_corrections_can_be_gone_on_with(open_report, clustered_run, tmp_path):
    tab = open_report(clustered_run / "report.html")
    select(tab, [0, 1])
    tab.page.keyboard.press("n")
    tab.page.keyboard.type("dent")
    tab.page.keyboard.press("Enter")
    select(tab, [2])
    tab.page.locator("#not-this").click()
    saved = save_from(tab, tmp_path / "one.json")
    assert [one.get("class", "not") for one in saved["regions"]] == ["dent", "dent", "not"]
    fresh = open_report(clustered_run / "report.html")
    fresh.page.locator("#load").set_input_files(tmp_path / "one.json")
    fresh.page.locator("#save-status", has_text="3 corrected; loaded, nothing has changed since").wait_for()
    assert "changed" not in fresh.page.locator(".save").get_attribute("class")
    select(fresh, [3])
    fresh.page.locator("#choices").get_by_role("button", name="dent").click()
    assert len(save_from(fresh, tmp_path / "two.json")["regions"]) == 4
    fresh.page.get_by_role("button", name="Undo").click()
    assert save_from(fresh, tmp_path / "three.json") == saved
    (tmp_path / "bad.json").write_text("{")
    fresh.page.locator("#load").set_input_files(tmp_path / "bad.json")
    fresh.page.locator("#save-status.wrong").wait_for()
    assert "no file of corrections" in fresh.page.locator("#save-status").inner_text()


def test_an_image_without_a_region_is_given_a_class(open_report, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    results = RunResults.load(run / "results.npz")
    image = int(results.batch.region_image_index[0])
    results.batch.region_area[results.batch.region_image_index == image] = 0
    write_run_files(run, results, SLOTS)
    tab, key = open_report(run / "report.html"), results.image_keys[image]
    tab.page.get_by_label(f"Class of {key}").fill("smear")
    tab.page.get_by_label(f"Class of {key}").press("Enter")
    tab.page.locator("#save-status", has_text="1 corrected; not saved yet").wait_for()
    assert save_from(tab, tmp_path / "one.json")["regions"] == [{"image": key, "class": "smear"}]
    fresh = open_report(run / "report.html")
    fresh.page.locator("#load").set_input_files(tmp_path / "one.json")
    fresh.page.locator("#save-status", has_text="1 corrected; loaded").wait_for()
    assert fresh.page.get_by_label(f"Class of {key}").input_value() == "smear"
    fresh.page.get_by_label(f"Class of {key}").fill("class_2")
    fresh.page.keyboard.press("Tab")
    assert save_from(fresh, tmp_path / "two.json")["regions"] == [{"image": key, "class": "class_2"}]
    for known in ("", "smear"):  # by an earlier correction, which the report was made with
        field = fresh.page.get_by_label(f"Class of {key}")
        field.evaluate("(field, known) => (field.defaultValue = known)", known)
        for text in ("crack", ""):
            field.fill(text)
            fresh.page.keyboard.press("Tab")
        assert field.input_value() == known
        field.evaluate("field => (field.defaultValue = '')")
    fresh.page.locator("#undo").click()  # the last field that was emptied
    assert fresh.page.get_by_label(f"Class of {key}").input_value() == "crack"
    fresh.page.locator("#undo").click()
    fresh.page.locator("#undo").click()
    assert fresh.page.get_by_label(f"Class of {key}").input_value() == "crack"
    # A run's own corrections have no names, so that those of the report stay.
    fresh.page.get_by_label("Name of class_1", exact=True).fill("dent")
    (tmp_path / "kept.json").write_text(json.dumps({"regions": [{"image": key, "class": "class_2"}]}))
    fresh.page.locator("#load").set_input_files(tmp_path / "kept.json")
    fresh.page.locator("#save-status", has_text="loaded").wait_for()
    assert "dent" in save_from(fresh, tmp_path / "three.json")["names"].values()
    fresh.assert_quiet(run / "report.html")


def test_the_number_of_classes_is_chosen_with_a_slider(open_report, clustered_run, tmp_path):
    tab = open_report(clustered_run / "report.html")
    slider = tab.page.locator("#cut-number")
    assert "2 classes, as found" in tab.page.locator("#cut-value").inner_text()
    slider.fill("3")
    assert "falls apart" in tab.page.locator("#cut-text").inner_text()
    assert "3 classes; not saved yet" in tab.page.locator("#save-status").inner_text()
    assert save_from(tab, tmp_path / "cut.json")["num_classes"] == 3
    main(["refine", str(clustered_run), "--corrections", str(tmp_path / "cut.json"), "--output", str(tmp_path / "cut")])
    fewer = open_report(tmp_path / "cut" / "report.html")
    fewer.page.locator("#cut-number").fill("2")
    assert "becomes part of" in fewer.page.locator("#cut-text").inner_text()
    fewer.assert_quiet(tmp_path / "cut" / "report.html")


def test_many_regions_are_selected_with_a_box_and_by_likeness(open_report, clustered_run):
    tab = open_report(clustered_run / "report.html")
    tab.page.locator("#map").scroll_into_view_if_needed()
    tab.page.evaluate("document.getElementById('map').scrollIntoView({block: 'start', behavior: 'instant'})")
    box = tab.page.locator("#map").bounding_box()
    tab.page.get_by_role("button", name="Select with a box").click()
    tab.page.mouse.move(box["x"] + 3, box["y"] + 3)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] - 60, box["y"] + box["height"] - 3, steps=4)
    tab.page.mouse.up()
    assert tab.page.evaluate("report.selected.size") > 10
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("report.selected.size") == 0
    tab.page.get_by_role("button", name="Select with a box").click()
    select(tab, [0])
    tab.page.get_by_role("button", name="More like this").click()
    assert tab.page.evaluate("report.selected.size") == 9
    tab.page.keyboard.press("1")
    assert "9 corrected" in tab.page.locator("#save-status").inner_text()
    assert tab.page.evaluate("report.data.classOf.filter((number) => number === 0).length") >= 9
    tab.page.keyboard.press("Control+z")
    assert tab.page.evaluate("report.corrected.size") == 0
    tab.page.get_by_role("button", name="Select all of class_1").click()
    members = "report.data.classOf.filter((number) => number === 0).length"
    assert tab.page.evaluate("report.selected.size") == tab.page.evaluate(members) > 0


def test_5000_regions_are_drawn(open_report, tmp_path):
    results, slots = ring_of_regions(5000)
    crop = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), np.zeros((64, 64), bool)
    file = tmp_path / "report.html"
    write_report(file, results, slots, results.image_results(slots), lambda _: crop)
    assert file.stat().st_size < 30e6
    tab = open_report(file)
    assert tab.page.evaluate("report.count") == 5000
    tab.page.wait_for_timeout(200)
    for region in (17, 4999):
        tab.hover(region)
        assert tab.page.locator("#tip").is_visible()
    drawn = tab.page.evaluate(
        """() => new Promise((done) => {
          let frames = 0;
          const frame = () => {
            report.draw();
            frames += 1;
            if (frames < 20) requestAnimationFrame(frame);
            else done(frames);
          };
          requestAnimationFrame(frame);
        })""",
    )
    assert drawn == 20
    tab.page.evaluate("document.querySelector('.split summary').click()")
    tab.page.locator(".split").first.get_by_role("button", name="Select all of group 1").click()
    assert tab.page.evaluate("report.selected.size") > 50
    tab.page.keyboard.press("2")
    tab.page.keyboard.press("Control+z")
    tab.assert_quiet(file)
