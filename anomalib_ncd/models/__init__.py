# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Mask-guided encoder, heads and losses in plain torch, and the Lightning model around them."""

from anomalib_ncd.models.lightning_model import AnomalyNcd

__all__ = ["AnomalyNcd"]
