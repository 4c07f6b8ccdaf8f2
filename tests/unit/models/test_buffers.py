# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn

from anomalib_ncd.models.buffers import make_room


def build():
    module = nn.Module()
    module.register_buffer("rows", torch.ones(2, 3))
    module.register_buffer("other", torch.ones(4))
    return module


def test_buffers_get_the_sizes_of_the_state():
    module = build()
    state = {"inner.rows": torch.zeros(5, 3, dtype=torch.float16)}
    make_room(module, ["rows"], state, "inner.")
    assert module.rows.shape == (5, 3)
    assert module.rows.dtype == torch.float16
    assert torch.equal(module.other, torch.ones(4))


def test_what_a_state_lacks_becomes_empty():
    module, state = build(), {}
    make_room(module, ["rows", "other"], state, "inner.")
    assert state["inner.rows"].shape == module.rows.shape == (0, 3)
    assert state["inner.other"].shape == module.other.shape == (0,)


def test_buffers_of_the_same_size_stay():
    module = build()
    rows = module.rows
    make_room(module, ["rows"], {"rows": torch.zeros(2, 3)}, "")
    assert module.rows is rows
