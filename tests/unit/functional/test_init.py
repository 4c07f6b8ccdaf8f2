# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_prediction_on_the_line_needs_numpy_and_opencv_alone():
    root = Path(anomalib_ncd.functional.__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from anomalib_ncd.functional import binarize, choose_classes, eval_view, extract_regions, merge_image\n"
        "import anomalib_ncd.functional.decoding, anomalib_ncd.functional.image_header\n"
        "import anomalib_ncd.functional.rejection\n"
        "heavy = {'torch', 'scipy', 'PIL', 'lightning', 'anomalib', 'torchvision'}\n"
        "found = sorted(heavy & {name.partition('.')[0] for name in sys.modules})\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'merge_everything'"):
        anomalib_ncd.functional.merge_everything  # noqa: B018


def test_exports_exist():
    names = anomalib_ncd.functional.__all__
    assert all(hasattr(anomalib_ncd.functional, name) for name in names)
    assert len(set(names)) == len(names)
