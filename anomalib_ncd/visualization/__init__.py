# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of discovered classes."""

import anomalib.models  # noqa: F401 - before all else, see anomalib_ncd._registration

from anomalib_ncd.visualization.gallery import region_tile, write_gallery

__all__ = ["region_tile", "write_gallery"]
