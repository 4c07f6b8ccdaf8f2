# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The method before and after the network, for one image; NumPy, OpenCV and Pillow, no torch."""
