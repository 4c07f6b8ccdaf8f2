# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest

CODE = """
import sys
from anomalib.models import get_model
assert not [name for name in sys.modules if name.startswith("anomalib_ncd")]
exec(sys.argv[1])
from anomalib_ncd.settings import TrainingSettings
settings = {"backbone": "test_vit", "pretrained": False, "training": TrainingSettings(mask_layers=2)}
model = get_model("anomaly_ncd", num_novel_classes=4, **settings)
assert type(model).__name__ == "AnomalyNcd" and model.slots.num_novel == 4
"""


@pytest.mark.parametrize("imports", ["from anomalib_ncd import AnomalyNcd", "import anomalib_ncd.models"])
def test_anomalib_finds_the_model_once_it_is_imported(imports, run_fresh):
    run_fresh(CODE, imports)
