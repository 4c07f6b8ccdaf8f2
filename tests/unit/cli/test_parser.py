# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.cli.discover import DataFlags, ModelFlags
from anomalib_ncd.cli.main import main
from anomalib_ncd.cli.parser import COMMANDS, parse
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.settings import PAPER, TrainingSettings

HEAVY = {"torch", "anomalib", "lightning", "timm", "sklearn", "matplotlib"}
SCREEN = 50


def help_of(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(list(args))
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("args", ["--help", "discover --help", "discover --preset paper --print_config", "pack --help"])
def test_help_imports_nothing_heavy(args):
    code = (
        "import sys\n"
        "from anomalib_ncd.cli.main import main\n"
        f"try: main({args.split()})\n"
        "except SystemExit as ended: assert ended.code == 0, ended.code\n"
        f"assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert COMMANDS[command].description in " ".join(help_of(capsys, command, "--help").split())


def test_the_version(capsys):
    assert "0." in help_of(capsys, "--version")


def test_discover_has_few_flags_and_its_help_fits_two_screens(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, "discover", "--help")
    assert len(text.splitlines()) <= 2 * SCREEN
    flags = {line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")}
    own = {flag for flag in flags if "." not in flag} - {"-h", "--print_config"}
    assert len(own) <= 22
    assert {"--training.help", "--regions.help"} <= flags
    assert "--training.num_heads" not in text


def test_groups_of_settings_have_help_of_their_own(capsys):
    text = help_of(capsys, "discover", "--training.help")
    assert {f"--training.{field.name}" for field in fields(TrainingSettings)} <= set(text.split())
    assert "--regions" not in text


@pytest.mark.parametrize(("flags", "owner"), [(DataFlags, NcdDataModule), (ModelFlags, AnomalyNcd)])
def test_flags_are_arguments_with_their_defaults(flags, owner):
    arguments = inspect.signature(owner).parameters
    chosen_later = {"backbone"}
    for field in fields(flags):
        assert field.name in arguments
        assert field.name in chosen_later or field.default == arguments[field.name].default, field.name


def test_what_a_preset_sets_gives_way_to_flags_and_files(tmp_path):
    required = ["--images", "a", "--output", "b"]
    config = parse(["discover", "--training.num_heads", "2", *required, "--preset", "paper"]).discover
    assert vars(config.training) == vars(PAPER) | {"num_heads": 2}
    assert vars(config.regions) == vars(RegionSettings(method="mebin"))
    assert (config.method, config.max_epochs, config.backbone) == ("train", 50, "vit_base_patch8_224.dino")
    file = tmp_path / "config.yaml"
    file.write_text("preset: paper\nmax_epochs: 3\n")
    config = parse(["discover", *required, "--config", str(file)]).discover
    assert (config.max_epochs, config.training.prototypes) == (3, "random")
    assert vars(parse(["discover", *required]).discover.training) == vars(TrainingSettings())


def test_a_config_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SystemExit, match=r"config\.yaml is not .*can't decode"):
        main(["discover", "--config", str(file)])
