# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of discovered classes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_ncd.visualization.callbacks import FigureLogger, NcdVisualizer

__all__ = ["FigureLogger", "NcdVisualizer"]


def __getattr__(name: str) -> Any:
    """Import what needs anomalib on first use, so that pictures of an artefact's results are drawn without torch."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.callbacks"), name)
