# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Tell anomalies apart: discover defect classes in the anomaly maps of any anomalib detector."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_ncd.data import NcdDataModule
    from anomalib_ncd.models import AnomalyNcd
    from anomalib_ncd.post_processing import MEBin
    from anomalib_ncd.runs.discover import discover

__version__ = "0.1.0"
__all__ = ["AnomalyNcd", "MEBin", "NcdDataModule", "__version__", "discover"]

_HOMES = {
    "AnomalyNcd": "anomalib_ncd.models",
    "MEBin": "anomalib_ncd.post_processing",
    "NcdDataModule": "anomalib_ncd.data",
    "discover": "anomalib_ncd.runs.discover",
}


def __getattr__(name: str) -> Any:
    """Import what needs anomalib on first use, so that ``anomalib_ncd.regions`` and the command's help stay light.

    anomalib finds a model once its class exists: ``get_model("anomaly_ncd")`` works after ``AnomalyNcd`` was imported.
    """
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
