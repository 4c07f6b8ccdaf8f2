# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Writes the page of the command line from the parser itself; MkDocs calls it for each page."""

from __future__ import annotations

import os
from typing import Any

from anomalib_ncd.cli.parser import COMMANDS, build_parser

MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of each command in place of the marker."""
    return markdown.replace(MARKER, commands()) if MARKER in markdown else markdown


def commands() -> str:
    """The help of all commands in Markdown."""
    os.environ["COLUMNS"] = "110"
    parser = build_parser()
    subparsers = parser._subcommands_action._name_parser_map
    parts = []
    for name, command in COMMANDS.items():
        parts.append(f"## {name}\n\n{command.description}\n\n```text\n{subparsers[name].format_help().strip()}\n```\n")
        for group in subparsers[name].settings_groups:
            shown = subparsers[name].help_of_settings(group).strip()
            parts.append(f"### {name}: `--{group}.*`\n\n```text\n{shown}\n```\n")
    return "\n".join(parts)
