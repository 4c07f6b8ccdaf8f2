# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Pages in one file that open offline: templates, styles and scripts that lie in the package."""

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

STYLE = "report/page/report.css"


def packaged(name: str) -> str:
    """Text of a file below this folder."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def render(template: str, **values: Any) -> str:
    """Fill in a template, with the style of all pages as ``css``; whatever it is given is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    css = Markup(packaged(STYLE))  # noqa: S704 - a file of this package
    return environment.from_string(packaged(template)).render(css=css, **values)
