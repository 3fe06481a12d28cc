"""Freed memory is kept for the next tensors instead of being handed back to the system."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's settings
MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep what it has; returns whether it could be told.

    Passes of an encoder allocate the same large blocks again and again. Handed back and fetched anew each
    time, they cost a tenth of the time, in which the system clears their pages.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, MOST)) and bool(mallopt(TRIM_THRESHOLD, MOST))
