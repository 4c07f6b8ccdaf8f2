# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-ncd``."""

import anomalib.models  # noqa: F401 - before all else, see anomalib_ncd._registration
