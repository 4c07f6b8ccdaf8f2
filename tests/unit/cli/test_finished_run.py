# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import json
import logging

import pytest

from anomalib_ncd.cli.main import main

REGION = {"area": 9, "unknown": True, "neighbour_similarity": 0.1}
RESULT = {"class": "dent", "normal": False, "unknown": True, "error": None, "modified": None, "regions": [REGION]}


@pytest.fixture
def results(tmp_path):
    about = {
        "classifier": "a",
        "class_names": [],
        "normal": "good",
        "false_reject_rate": 0.02,
        "similarities": [0.5] * 140,
    }
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    (tmp_path / "results.jsonl").write_text((json.dumps(RESULT) + "\n") * 30)
    return tmp_path


def test_the_command_writes_the_page_and_warns_of_drift(results, caplog):
    caplog.set_level(logging.INFO, "anomalib_ncd")
    main(["trend", str(results), "--output", str(results / "trend.html"), "--by", "batch"])
    assert "Drift in 1 of them" in (results / "trend.html").read_text()
    assert f"Drift in {results.name}: regions" in caplog.text


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(SystemExit, match="give folders that `anomalib-ncd classify` wrote"):
        main(["trend", str(tmp_path)])
