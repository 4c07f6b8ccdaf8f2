# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "imports",
    ["from anomalib.models import get_model; from anomalib_ncd import AnomalyNcd", "import anomalib_ncd.models"],
)
def test_anomalib_finds_the_model_once_it_is_imported(imports):
    code = (
        f"{imports}\n"
        "from anomalib.models import get_model\n"
        "from anomalib_ncd.settings import TrainingSettings\n"
        "settings = {'backbone': 'test_vit', 'pretrained': False, 'training': TrainingSettings(mask_layers=2)}\n"
        "model = get_model('anomaly_ncd', num_novel_classes=4, **settings)\n"
        "assert type(model).__name__ == 'AnomalyNcd' and model.slots.num_novel == 4\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_alone_does_not_import_anomalib():
    code = (
        "import sys\n"
        "hooks = list(sys.meta_path)\n"
        "import anomalib_ncd\n"
        "assert not {'anomalib', 'lightning', 'torch'} & set(sys.modules)\n"
        "assert sys.meta_path == hooks\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
