# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How healthy a discovery run is, without labels."""

from anomalib_ncd.metrics.health.figures import RunEvidence, health_figures
from anomalib_ncd.metrics.health.verdicts import FIGURES, HealthFigure, health_report

__all__ = ["FIGURES", "HealthFigure", "RunEvidence", "health_figures", "health_report"]
