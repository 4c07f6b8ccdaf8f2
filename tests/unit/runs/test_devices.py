# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.runs.devices import device_of


def test_the_device_is_lightnings_choice():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type in {"cpu", "cuda", "mps", "xpu"}
    with pytest.raises(ValueError, match="abacus"):
        device_of("abacus")
