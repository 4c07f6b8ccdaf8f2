# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalib_ncd.cli.main import main
from anomalib_ncd.cli.parser import build_parser
from anomalib_ncd.cli.prepare import next_command, summary
from anomalib_ncd.data.prepare import PreparedData


@pytest.fixture
def raw(tmp_path):
    """A tiny Magnetic Tile Defect with one kind of defect, whose mask is empty."""
    for kind, count in (("MT_Free", 5), ("MT_Crack", 1)):
        folder = tmp_path / "raw" / kind / "Imgs"
        folder.mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / f"{number}.jpg"), np.full((20, 20), 90, np.uint8))
            cv2.imwrite(str(folder / f"{number}.png"), np.zeros((20, 20), np.uint8))
    return tmp_path / "raw"


@pytest.fixture
def data():
    images = {"test/crack": 12, "test/good": 3, "train/good": 100}
    return PreparedData(Path("a b"), images, {"crack": 12}, ["crack"])


def test_the_command_prepares_and_says_what_to_do_next(raw, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        main(["prepare", "mtd", str(raw), str(tmp_path / "out"), "--train_ratio", "0.6"])
    assert len(list((tmp_path / "out" / "train" / "good").iterdir())) == 3
    assert "test/MT_Crack       1 images, 1 masks" in caplog.text
    assert "1 published masks are empty" in caplog.text
    assert f"discover --images {tmp_path / 'out' / 'test'} --normal_images" in caplog.text


def test_errors_are_one_line(tmp_path):
    (tmp_path / "raw").mkdir()
    for name in ("mtd", "aebad"):
        with pytest.raises(SystemExit) as ended:
            main(["prepare", name, str(tmp_path / "raw"), str(tmp_path / "out")])
        assert str(ended.value.code).startswith("anomalib-ncd: Looked in ")


def test_arguments_are_those_of_the_functions():
    config = build_parser().parse_args(["prepare", "aebad", "r", "o", "--domains", '["same"]'])
    assert config.prepare.aebad.as_dict() == {
        "raw": Path("r"), "out": Path("o"), "domains": ["same"],
    }  # fmt: skip
    config = build_parser().parse_args(["prepare", "mtd", "r", "o"])
    assert config.prepare.mtd.as_dict() == {
        "raw": Path("r"), "out": Path("o"), "train_list": None, "train_ratio": 0.8, "seed": 0,
    }  # fmt: skip


def test_the_summary_counts_per_class(data):
    assert summary(data).splitlines() == [
        "test/crack      12 images, 12 masks",
        "test/good        3 images",
        "train/good     100 images",
        "127 files in a b.",
    ]


def test_the_next_command_is_one(data):
    words = shlex.split(next_command(data, "mtd").splitlines()[1])
    config = build_parser().parse_args(words[1:]).discover
    assert words[0] == "anomalib-ncd"
    assert (config.images, config.normal_images) == (Path("a b/test"), "a b/train/good")
    assert (config.labels, config.num_novel_classes) == ("folders", 2)
