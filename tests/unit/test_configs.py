# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Every YAML file in ``configs`` makes what it says; backbones stay random, since there may be no hub."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from anomalib.cli.cli import AnomalibCLI

from anomalib_ncd import AnomalyNcd, MEBin, NcdDataModule
from anomalib_ncd.cli.parser import build_parser, parse
from anomalib_ncd.settings import PAPER

CONFIGS = Path(__file__).parents[2] / "configs"
FOR_ANOMALIB = ["aebad.yaml", "mtd.yaml", "mvtec_ad.yaml", "real_iad.yaml", "visa.yaml"]
FOR_DETECTORS = ["mebin/patchcore.yaml"]
FOR_DISCOVER = ["folder.yaml", "paper/mtd.yaml", "paper/mvtec_ad.yaml"]


@pytest.mark.parametrize("name", FOR_ANOMALIB)
def test_anomalibs_own_command_takes_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["train", "--config", str(CONFIGS / name), "--model.pretrained", "false", "--trainer.accelerator", "cpu"]
    cli = AnomalibCLI(args=args, run=False)
    assert isinstance(cli.model, AnomalyNcd)
    assert isinstance(cli.datamodule, NcdDataModule)
    written = yaml.safe_load((CONFIGS / name).read_text())["model"]["init_args"]
    assert cli.model.slots.num_novel == written["num_novel_classes"]


@pytest.mark.parametrize("name", FOR_DETECTORS)
def test_detectors_get_mebin(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["train", "--config", str(CONFIGS / name), "--model.pre_trained", "false", "--trainer.accelerator", "cpu"]
    assert isinstance(AnomalibCLI(args=args, run=False).model.post_processor, MEBin)


@pytest.mark.parametrize("name", FOR_DISCOVER)
def test_discover_takes_it(name):
    config = build_parser().parse_args(["discover", "--config", str(CONFIGS / name)]).discover
    written = yaml.safe_load((CONFIGS / name).read_text())
    assert {key: config[key] for key in ("num_novel_classes", "max_epochs", "base")} == {
        "num_novel_classes": written["num_novel_classes"],
        "max_epochs": written["max_epochs"],
        "base": written["base"],
    }


@pytest.mark.parametrize(("name", "temperature"), [("paper/mtd.yaml", 50.0), ("paper/mvtec_ad.yaml", 100.0)])
def test_the_papers_files_say_what_the_preset_sets(name, temperature):
    written = yaml.safe_load((CONFIGS / name).read_text())
    assert written["training"] == asdict(PAPER) | {"merging_temperature": temperature}
    preset = parse(["discover", "--preset", "paper", "--images", "a", "--output", "b"]).discover
    for key in ("method", "max_epochs", "backbone"):
        assert written[key] == preset[key]
    for key, value in written["regions"].items():
        assert preset.regions[key] == value


def test_no_config_is_left_untested():
    found = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert found == {*FOR_ANOMALIB, *FOR_DETECTORS, *FOR_DISCOVER}
