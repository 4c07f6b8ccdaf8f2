# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Clusters of regions, the number of classes, and where training starts."""
