"""How the process deals with memory that was freed."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST, _KEPT = 32 * 2**20, 256 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next picture instead of giving it back to the system.

    Every picture needs the same few dozen megabytes for a moment. Fetched anew each time, they
    arrive page by page, which takes a twentieth to a half as long as the rendering itself, as the
    machine has it. At most 256 MB are kept.

    Returns
    -------
    Whether this C library can do it; where it can't, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _KEPT))
