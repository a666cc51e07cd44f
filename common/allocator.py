"""The C library's allocator, told to keep what is freed. Nothing else in Python reaches these settings."""

from __future__ import annotations

import ctypes
import os

# <malloc.h> of glibc; see mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 * 2**20  # freed memory at the end of the heap that is kept
HEAP_BYTES = 32 * 2**20  # the largest that glibc allows: blocks up to this come from the heap


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of large arrays from now on; False where the C library has no such setting.

    glibc gives blocks of a picture's size back to the kernel when they are freed, and the kernel clears every page of
    the next one: a third of the time of decoding. The workers get the same by `config.WORKER_ENVIRONMENT`, whose
    settings are left alone.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return True
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, HEAP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
