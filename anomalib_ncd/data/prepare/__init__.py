# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Published archives, put into the layout that ``discover`` and anomalib's datamodules read."""
