# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The commands of ``anomalib-ncd`` and their flags.

Flags are declared, and parsed, without torch and anomalib, whose import takes ten seconds of a processor and more.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd import __version__
from anomalib_ncd.cli.classify import (
    add_classify_arguments,
    add_extend_arguments,
    add_pack_arguments,
    run_classify,
    run_extend,
    run_pack,
)
from anomalib_ncd.cli.discover import (
    add_demo_arguments,
    add_discover_arguments,
    preset_defaults,
    run_demo,
    run_discover,
)
from anomalib_ncd.cli.finished_run import (
    add_export_arguments,
    add_name_arguments,
    add_refine_arguments,
    add_trend_arguments,
    run_export,
    run_name,
    run_refine,
    run_trend,
)
from anomalib_ncd.cli.nested_flags import CommandParser
from anomalib_ncd.cli.prepare import add_prepare_arguments, run_prepare


@dataclass(frozen=True)
class Command:
    """A subcommand: what it does, in a sentence, what adds its arguments to a parser, and what runs it."""

    description: str
    add_arguments: Callable[[CommandParser], None]
    run: Callable[[Namespace], None]


COMMANDS = {
    "discover": Command(
        "Discover defect classes in images and their anomaly maps.", add_discover_arguments, run_discover
    ),
    "classify": Command(
        "Classify new images with what a run has learnt, once or as a camera writes them.",
        add_classify_arguments,
        run_classify,
    ),
    "extend": Command(
        "Discover new kinds of defect in new images and add them to the classes of a run.",
        add_extend_arguments,
        run_extend,
    ),
    "pack": Command("Pack a run, and its detector, for places without training code.", add_pack_arguments, run_pack),
    "demo": Command("Do the whole way on images that are drawn for it, without network.", add_demo_arguments, run_demo),
    "name": Command("Call the classes of a run by names saved from its report.", add_name_arguments, run_name),
    "refine": Command(
        "Let the classes of a run follow corrections saved from its report; seconds.", add_refine_arguments, run_refine
    ),
    "export": Command("Write a run as COCO, YOLO, CSV or folders for other tools.", add_export_arguments, run_export),
    "trend": Command("Show kinds of defect over time, and drift, on one page.", add_trend_arguments, run_trend),
    "prepare": Command("Put published data into the layout that discover reads.", add_prepare_arguments, run_prepare),
}


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
            subparser.set_defaults(preset_defaults(preset))
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
