# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys

import pytest


@pytest.mark.parametrize("imports", ["anomalib.models, anomalib_ncd", "anomalib_ncd, anomalib.engine", "anomalib_ncd"])
def test_anomalib_finds_the_model_in_whichever_order_things_are_imported(imports):
    code = (
        f"import {imports}\n"
        "from anomalib.models import get_model\n"
        "model = get_model('anomaly_ncd', backbone='test_vit', pretrained=False, mask_layers=2, num_novel_classes=4)\n"
        "assert type(model).__name__ == 'AnomalyNcd' and model.num_novel_classes == 4\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_alone_does_not_import_anomalib():
    code = "import sys, anomalib_ncd; assert not {'anomalib', 'lightning', 'torch'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
