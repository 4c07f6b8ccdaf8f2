# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_ncd.cli`` does what ``anomalib-ncd`` does."""

from anomalib_ncd.cli.main import main

if __name__ == "__main__":
    main()
