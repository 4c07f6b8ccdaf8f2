# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Published archives, put into the layout that ``discover`` and anomalib's datamodules read."""

from anomalib_ncd.data.prepare.aebad import prepare_aebad
from anomalib_ncd.data.prepare.layout import PreparedData
from anomalib_ncd.data.prepare.mtd import prepare_mtd

__all__ = ["PreparedData", "prepare_aebad", "prepare_mtd"]
