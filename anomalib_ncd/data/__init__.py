# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Images, anomaly maps, base classes and regions."""

from anomalib_ncd.data.batches import NcdBatch, RegionViewBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.region_table import RegionTable
from anomalib_ncd.regions.settings import RegionSettings

__all__ = ["NcdBatch", "NcdDataModule", "RegionSettings", "RegionTable", "RegionViewBatch"]
