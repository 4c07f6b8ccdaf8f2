# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys
from pathlib import Path

import pytest

import anomalib_ncd.regions

FOLDER = Path(anomalib_ncd.regions.__file__).parent
MODULES = sorted(
    ".".join(["anomalib_ncd.regions", *path.relative_to(FOLDER).with_suffix("").parts])
    for path in FOLDER.rglob("*.py")
    if path.name != "__init__.py"
)
HEAVY = {"torch", "torchvision", "scipy", "sklearn", "lightning", "anomalib", "torchmetrics", "timm"}


@pytest.mark.parametrize("module", MODULES)
def test_each_module_needs_neither_torch_nor_anomalib(module):
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER.parents[1])!r})\n"
        f"import {module}\n"
        f"found = sorted({HEAVY!r} & {{name.partition('.')[0] for name in sys.modules}})\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
