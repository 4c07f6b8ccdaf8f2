# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Makes the plug-in's models known to anomalib as soon as both are imported, in whichever order.

anomalib has no entry points: ``get_model("anomaly_ncd")`` finds the subclasses of ``AnomalibModule`` that exist.
Importing anomalib takes seconds and brings Lightning, which code that only runs ``anomalib_ncd.regions`` must not
pay for. So the models are defined right away where anomalib is there already, else when it comes.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

HOST = "anomalib.models"
PLUGIN = "anomalib_ncd.models"


def register_with_anomalib() -> None:
    """Define the plug-in's models now if anomalib is imported, else once it is."""
    if HOST in sys.modules:
        importlib.import_module(PLUGIN)
    else:
        sys.meta_path.insert(0, _HostFinder())


class _HostFinder(MetaPathFinder):
    """Finds anomalib's models like Python itself would, but with a loader that defines the plug-in's afterwards."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find the host module; everything else is left to the other finders."""
        if fullname != HOST:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _HostLoader(spec.loader)
        return spec


class _HostLoader(Loader):
    """Runs the host's own loader, then imports the plug-in's models."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the host's loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Load the host, then the plug-in's models."""
        self.loader.exec_module(module)
        importlib.import_module(PLUGIN)
