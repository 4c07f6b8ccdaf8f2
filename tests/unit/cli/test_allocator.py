# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import platform
import subprocess
import sys

import pytest

from anomalib_ncd.cli import allocator

# Pages that are faulted in by writing 24 MB five times, each time into fresh memory.
SCRIPT = """
import ctypes, resource, runpy
keep_freed_memory = runpy.run_path({file!r})["keep_freed_memory"]
assert {prepare}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for number in range(5):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(24 << 20)
    ctypes.memset(block, 1, 24 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_without_new_pages():
    def faults(prepare):
        script = SCRIPT.format(prepare=prepare, file=allocator.__file__)  # alone: importing the package takes seconds
        result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env={})
        return int(result.stdout)

    assert faults("keep_freed_memory()") < 500
    assert faults("True") > 5000  # one block alone has 6,144 pages


def test_settings_of_the_environment_come_first(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setattr(allocator, "ctypes", None)
    assert not allocator.keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_freed_memory()
