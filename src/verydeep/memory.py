"""What the C library does with memory that is freed: give it back at once, or keep it for what comes next.

A step of a net asks for the same large blocks again and again. By its defaults glibc returns each block above 32 MB to
the system, which hands it out anew page by page, zeroed: a quarter of a step's time on a CPU (NOTES.md). The setting
is the process's, and it cannot be asked, so this room counts who wants what.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

MAP_ABOVE, TRIM_ABOVE = -3, -1  # glibc's names for what `mallopt` sets: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
USUAL = 32 * 2**20  # where glibc's own sliding threshold ends up in a process that frees large blocks
KEEP = 2**30

_wanted = [0]  # contexts of `kept` that are open


@contextmanager
def kept() -> Iterator[None]:
    """A context in which freed memory stays with the process; what is left of it then goes back."""
    _wanted[0] += 1
    _set(KEEP)
    try:
        yield
    finally:
        _wanted[0] -= 1
        if not _wanted[0]:
            _set(USUAL)
            _give_back()


@contextmanager
def usual() -> Iterator[None]:
    """A context inside `kept` in which glibc does as it does by default, and has nothing left from before."""
    _set(USUAL)
    _give_back()
    try:
        yield
    finally:
        if _wanted[0]:
            _set(KEEP)


def _set(threshold: int) -> None:
    library = _glibc()
    if library is not None:
        library.mallopt(MAP_ABOVE, threshold)
        library.mallopt(TRIM_ABOVE, min(2 * threshold, 2**31 - 1))


def _give_back() -> None:
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library where it is glibc, else None."""
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
