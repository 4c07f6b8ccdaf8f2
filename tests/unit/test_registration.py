# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each import is tried in a fork, as anomalib takes long to import")
def test_anomalib_finds_the_model_once_it_is_imported():
    code = (
        "import os, sys\n"
        "from anomalib.models import get_model\n"
        "assert not [name for name in sys.modules if name.startswith('anomalib_ncd')]\n"
        "for imports in ('from anomalib_ncd import AnomalyNcd', 'import anomalib_ncd.models'):\n"
        "    if os.fork():\n"
        "        assert os.wait()[1] == 0, imports\n"
        "        continue\n"
        "    exec(imports)\n"
        "    from anomalib_ncd.settings import TrainingSettings\n"
        "    settings = {'backbone': 'test_vit', 'pretrained': False, 'training': TrainingSettings(mask_layers=2)}\n"
        "    model = get_model('anomaly_ncd', num_novel_classes=4, **settings)\n"
        "    assert type(model).__name__ == 'AnomalyNcd' and model.slots.num_novel == 4\n"
        "    break\n"
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
