# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Entry point of the command ``anomalib-ncd``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace

from anomalib_ncd import __version__
from anomalib_ncd.cli.classify import add_classify_arguments, add_pack_arguments, run_classify, run_pack
from anomalib_ncd.cli.demo import add_demo_arguments, run_demo
from anomalib_ncd.cli.discover import add_discover_arguments, run_discover
from anomalib_ncd.cli.extend import add_extend_arguments, run_extend
from anomalib_ncd.cli.name import add_name_arguments, run_name
from anomalib_ncd.cli.prepare import add_prepare_arguments, run_prepare


@dataclass(frozen=True)
class Command:
    """A subcommand: what it does, in a sentence, what adds its arguments to a parser, and what runs it."""

    description: str
    add_arguments: Callable[[ArgumentParser], None]
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
    "prepare": Command("Put published data into the layout that discover reads.", add_prepare_arguments, run_prepare),
}


def build_parser() -> ArgumentParser:
    """Make the parser of ``anomalib-ncd`` with all its subcommands."""
    parser = ArgumentParser(prog="anomalib-ncd", version=__version__, description="Tell anomalies apart.")
    subcommands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        subparser = ArgumentParser(description=command.description)
        subcommands.add_subcommand(name, subparser, help=command.description)
        command.add_arguments(subparser)  # after the line above: jsonargparse wants outer subcommands first
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Arguments instead of the command line's.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = build_parser()
    config = parser.parse_args(args)
    try:
        COMMANDS[config.subcommand].run(config[config.subcommand])
    except (FileNotFoundError, FileExistsError, ValueError, RuntimeError, TypeError) as error:
        # What went wrong and what to do stands in the message; the traceback is for debugging.
        logging.getLogger(__name__).debug("Traceback", exc_info=error)
        sys.exit(f"anomalib-ncd: {error}")


if __name__ == "__main__":
    main()
