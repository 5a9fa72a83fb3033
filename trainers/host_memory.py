"""What a pass frees on the host stays with the process: the next pass asks for as much again.

glibc gives blocks of megabytes back at once, and the system clears every page of what it hands out anew. On SmolLM2 and
two cores that took a tenth of a step's time.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""mallopt(3)."""
KEPT_BYTES = 2**31 - 1
LARGEST_BLOCK_BYTES = 32 * 2**20
"""The most that glibc takes; larger blocks are the system's again once they are freed."""


def keep_freed_memory() -> bool:
    """Return whether the C library could be told: glibc's can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK_BYTES))
