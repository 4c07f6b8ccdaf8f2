# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Encoders of regions: vision transformers and convolutional networks guided by masks."""
