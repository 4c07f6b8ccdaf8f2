# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Entry point of the command ``anomalib-ncd``."""

import sys
from collections.abc import Sequence

from anomalib_ncd.cli.console import messages_for_errors, quiet_libraries, stop_on_signals


def main(args: Sequence[str] | None = None) -> None:
    """Run the command with ``args``, or the command line's."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args  # before or behind the subcommand
    with stop_on_signals(), quiet_libraries(debug=debug), messages_for_errors(debug=debug):
        from anomalib_ncd.cli.parser import COMMANDS, parse  # from here on, Ctrl-C is heeded

        config = parse([arg for arg in args if arg != "--debug"])
        COMMANDS[config.subcommand].run(config[config.subcommand])
