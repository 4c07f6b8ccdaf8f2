# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Folders of images classified into folders of results, once or for as long as images come."""
