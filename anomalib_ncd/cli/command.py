# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A subcommand and its parser, whose groups of settings, such as ``--regions.*``, have a help of their own."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace


class CommandParser(ArgumentParser):
    """Parser of a subcommand, whose help only mentions the groups of settings."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings_groups: dict[str, type] = {}

    def add_settings(self, settings_class: type, name: str) -> None:
        """Add the flags of a dataclass as a group; ``--NAME.help`` shows them."""
        self.add_class_arguments(settings_class, name)
        self.settings_groups[name] = settings_class
        parser = self

        class GroupHelp(argparse.Action):
            def __call__(self, *args: Any, **kwargs: Any) -> None:
                del args, kwargs
                sys.stdout.write(parser.help_of_settings(name))
                parser.exit()

        summary = (settings_class.__doc__ or "").split("\n")[0].rstrip(".")
        helped, unset = f"Show the flags --{name}.*: {summary}.", argparse.SUPPRESS
        self.add_argument(f"--{name}.help", action=GroupHelp, nargs=0, dest=unset, default=unset, help=helped)

    def help_of_settings(self, name: str) -> str:
        """Help of a group of settings alone."""
        shown = ArgumentParser(prog=self.prog, add_help=False, usage=argparse.SUPPRESS)
        shown.add_class_arguments(self.settings_groups[name], name)
        return shown.format_help()

    def format_help(self) -> str:
        """Help without the flags of groups."""
        hidden = {a: a.help for a in self._actions if a.dest.split(".")[0] in self.settings_groups}
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            return super().format_help()
        finally:
            for action, text in hidden.items():
                action.help = text


@dataclass(frozen=True)
class Command:
    """A subcommand: what it does, in a sentence, what adds its arguments to a parser, and what runs it."""

    description: str
    add_arguments: Callable[[CommandParser], None]
    run: Callable[[Namespace], None]
