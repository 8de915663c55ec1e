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

TRIM_ABOVE, MAP_ABOVE, MAPS = -1, -3, -4  # what `mallopt` sets: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX
LARGE = 32 * 2**20  # bytes, where glibc's own sliding threshold ends up in a process that frees large blocks
USUAL = {MAP_ABOVE: LARGE, TRIM_ABOVE: 2 * LARGE, MAPS: 65536}
KEEP = {TRIM_ABOVE: 2**31 - 1, MAPS: 0}

_wanted = [0]  # contexts of `kept` that are open


@contextmanager
def retain_freed_memory() -> Iterator[None]:
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


def _set(choices: dict[int, int]) -> None:
    library = _glibc()
    if library is not None:
        for name, value in choices.items():
            library.mallopt(name, value)


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
