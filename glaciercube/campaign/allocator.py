"""Memory that is freed goes back to the system, so that a process holds what its arrays need and not their history."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

__all__ = ["give_memory_back"]

# glibc's mallopt (malloc.h): from which size on a block is a mapping of its own, and how much of a heap is kept.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 65_536


def give_memory_back() -> bool:
    """Ask glibc to give large blocks back as soon as they are freed; True if it will.

    By default the limit from which blocks are mappings of their own grows up to 32 MB with what is freed, and arrays
    below it stay in the heaps of threads: the peaks of reading and of predicting then add up. Measured on a run of
    blocks of 256 pixels: 370 MB above the start without this, 218 MB with it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Setting either also ends its growing.
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGE))
