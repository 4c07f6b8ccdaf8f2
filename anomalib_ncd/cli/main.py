# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Entry point of the command ``anomalib-ncd``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from anomalib_ncd import __version__
from anomalib_ncd.cli.classify import add_classify_arguments, add_pack_arguments, run_classify, run_pack
from anomalib_ncd.cli.demo import add_demo_arguments, run_demo
from anomalib_ncd.cli.discover import add_discover_arguments, run_discover
from anomalib_ncd.cli.extend import add_extend_arguments, run_extend
from anomalib_ncd.cli.name import add_name_arguments, run_name
from anomalib_ncd.cli.prepare import add_prepare_arguments, run_prepare


def build_parser() -> ArgumentParser:
    """Make the parser of ``anomalib-ncd`` with all its subcommands."""
    parser = ArgumentParser(prog="anomalib-ncd", version=__version__, description="Tell anomalies apart.")
    subcommands = parser.add_subcommands()
    discover = ArgumentParser(description="Discover defect classes in images and their anomaly maps.")
    add_discover_arguments(discover)
    subcommands.add_subcommand("discover", discover, help="discover defect classes in images and their anomaly maps")
    classify = ArgumentParser(description="Classify new images with what a run has learnt.")
    add_classify_arguments(classify)
    subcommands.add_subcommand("classify", classify, help="classify new images, once or as a camera writes them")
    extend = ArgumentParser(description="Discover new kinds of defect in new images and add them to a run.")
    add_extend_arguments(extend)
    subcommands.add_subcommand("extend", extend, help="add new kinds of defect in new images to the classes of a run")
    pack = ArgumentParser(description="Pack a run, and its detector, for places without training code.")
    add_pack_arguments(pack)
    subcommands.add_subcommand("pack", pack, help="pack a run, and its detector, for the line")
    demo = ArgumentParser(description="Do the whole way on images that are drawn for it, without network.")
    add_demo_arguments(demo)
    subcommands.add_subcommand("demo", demo, help="do the whole way on images that are drawn for it")
    name = ArgumentParser(description="Call the classes of a run by names saved from its report.")
    add_name_arguments(name)
    subcommands.add_subcommand("name", name, help="call the classes of a run by names saved from its report")
    prepare = ArgumentParser(description="Put published data into the layout that `discover` reads.")
    subcommands.add_subcommand("prepare", prepare, help="put published data into the layout that discover reads")
    add_prepare_arguments(prepare)  # after the line above: jsonargparse wants outer subcommands first
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        args: Arguments instead of the command line's.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = build_parser()
    config = parser.parse_args(args)
    commands = {
        "discover": run_discover,
        "classify": run_classify,
        "extend": run_extend,
        "pack": run_pack,
        "demo": run_demo,
        "name": run_name,
        "prepare": run_prepare,
    }
    try:
        commands[config.subcommand](config[config.subcommand])
    except (FileNotFoundError, FileExistsError, ValueError, RuntimeError, TypeError) as error:
        # What went wrong and what to do stands in the message; the traceback is for debugging.
        logging.getLogger(__name__).debug("Traceback", exc_info=error)
        sys.exit(f"anomalib-ncd: {error}")


if __name__ == "__main__":
    main()
