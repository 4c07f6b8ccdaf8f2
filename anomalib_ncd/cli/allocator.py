# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How the process deals with memory that it has freed."""

from __future__ import annotations

import ctypes
import os

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEPT_BYTES = 512 * 2**20
MAPPED_BYTES = 32 * 2**20  # glibc takes no more
PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep up to half a gigabyte of freed memory for the next layer instead of giving it back each time.

    Every layer of a network asks for some megabytes and frees them again. glibc hands the top of its heap back to the
    system, which has to clear each page anew when the next layer asks: a quarter of the time of a forward pass of
    DeiT-Tiny on a virtual machine. It concerns the whole process, so it is for programs to call, not for libraries.

    Returns:
        Whether it was set: only with glibc, and not where the environment has settings of its own (``MALLOC_…``).

    Example:
        >>> keep_freed_memory() in {True, False}
        True
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    settings = ((M_MMAP_THRESHOLD, MAPPED_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, PAD_BYTES))
    return all(mallopt(name, value) for name, value in settings)
