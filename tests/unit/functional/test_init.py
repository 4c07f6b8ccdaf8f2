# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys
from pathlib import Path

import anomalib_ncd.functional


def test_import_needs_neither_lightning_nor_anomalib():
    root = Path(anomalib_ncd.functional.__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "import anomalib_ncd.functional\n"
        "heavy = {'lightning', 'pytorch_lightning', 'anomalib', 'torchmetrics', 'timm', 'sklearn'}\n"
        "found = sorted(heavy & {name.partition('.')[0] for name in sys.modules})\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_exports_exist():
    names = anomalib_ncd.functional.__all__
    assert all(hasattr(anomalib_ncd.functional, name) for name in names)
    assert len(set(names)) == len(names)
