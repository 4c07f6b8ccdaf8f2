# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The report of a run: one HTML file that opens offline."""

from anomalib_ncd.visualization.report.embedding import map_regions
from anomalib_ncd.visualization.report.report import write_report

__all__ = ["map_regions", "write_report"]
