# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Commands of the docs are run by a test or say why not, their flags exist, and the pages stay short."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from anomalib_ncd.cli.parser import parse

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
USER_PAGES = sorted(path for path in DOCS.rglob("*.md") if "research" not in path.parts)
PAGES = [ROOT / "README.md", *USER_PAGES]
OTHERS = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
BLOCK = re.compile(r"(<!-- not run: (?P<why>.+?) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)```", re.DOTALL)


def blocks(page):
    """Language, code and reason not to be run of each block."""
    return [(match["language"], match["code"], match["why"]) for match in BLOCK.finditer(page.read_text())]


def commands(page):
    """Commands of this package, one a line."""
    code = "\n".join(code for language, code, _ in blocks(page) if language == "bash").replace("\\\n", " ")
    return [found.strip() for found in re.findall(r"(?:^|&& )(anomalib-ncd [^\n&#]+)", code, re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_of_commands_exist(page):
    for command in commands(page):
        parse(shlex.split(command, comments=True)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_names_a_test_that_is_there(page):
    for _, _, why in blocks(page):
        for name in re.findall(r"tests/[\w/]+\.py", why or ""):
            assert (ROOT / name).is_file(), name


def test_the_page_of_the_command_line_is_made_from_the_parser():
    spec = importlib.util.spec_from_file_location("hooks_of_the_docs", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.on_page_markdown((DOCS / "reference" / "cli.md").read_text())
    for part in ("## refine", "### discover: `--training.*`", "--training.num_cached_views", "--regions.erosion_size"):
        assert part in page


def test_pages_are_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
    assert sum(len(page.read_text().split()) for page in USER_PAGES) <= 10_000


def test_every_page_is_in_the_navigation():
    found = re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(found) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [*PAGES, *DOCS.glob("research/*.md"), *OTHERS], ids=lambda page: page.name)
def test_files_that_are_linked_are_there(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
