# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0


from anomalib_ncd.post_processing.exported import MEBinSettings, mebin_from_exported
from anomalib_ncd.post_processing.mebin import MEBin, MEBinBatch, MEBinItem, masks_at_file_size

__all__ = ["MEBin", "MEBinBatch", "MEBinItem", "MEBinSettings", "masks_at_file_size", "mebin_from_exported"]
