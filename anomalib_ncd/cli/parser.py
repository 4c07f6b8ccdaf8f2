# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The commands of ``anomalib-ncd``, parsed without torch and anomalib, whose import takes ten seconds and more."""

import argparse
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd import __version__
from anomalib_ncd.cli import classify, discover, finished_run, prepare
from anomalib_ncd.cli.command import CommandParser

COMMANDS = discover.COMMANDS | classify.COMMANDS | finished_run.COMMANDS | prepare.COMMANDS


def build_parser(preset: str | None = None) -> ArgumentParser:
    """Make the parser with all its subcommands; a ``preset`` sets what ``discover`` has where nothing is given."""
    parser = ArgumentParser(prog="anomalib-ncd", version=__version__, description="Tell anomalies apart.")
    parser.add_argument("--debug", action="store_true", help="Show tracebacks, and what libraries say.")
    subcommands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        subparser = CommandParser(description=command.description)
        subcommands.add_subcommand(name, subparser, help=command.description)
        command.add_arguments(subparser)  # after the line above: jsonargparse wants outer subcommands first
        if preset is not None and name == "discover":
            subparser.set_defaults(discover.preset_defaults(preset))
    return parser


def parse(args: Sequence[str]) -> Namespace:
    """Parse arguments; what a preset sets gives way to flags and files, wherever they stand."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", nargs="?")
    early.add_argument("--config", nargs="?")
    given = early.parse_known_args(args)[0]
    try:
        config = build_parser(given.preset).parse_args(args)
    except UnicodeDecodeError as error:
        msg = f"`--config` must name a YAML file in UTF-8, but {given.config} is not ({error})."
        raise ValueError(msg) from error
    if config.subcommand == "discover" and config.discover.preset != given.preset:  # a file names it
        config = build_parser(config.discover.preset).parse_args(args)
    return config
