# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Mask-guided encoder, heads and losses in plain torch, and the Lightning model around them."""

import anomalib.models  # noqa: F401 - before all else, see anomalib_ncd._registration

from anomalib_ncd.models.lightning_model import AnomalyNcd

__all__ = ["AnomalyNcd"]
