# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of discovered classes."""

from anomalib_ncd.metrics.clustering import ARI, NMI, ClusterAccuracy, ClusterMacroF1
from anomalib_ncd.metrics.defects import multilabel_report
from anomalib_ncd.metrics.discovery import clustering_report, normal_report

__all__ = ["ARI", "NMI", "ClusterAccuracy", "ClusterMacroF1", "clustering_report", "multilabel_report", "normal_report"]
