"""Whether the C library returns freed memory to the operating system at once or keeps it for the next allocation.

Each step of a net allocates the same large blocks. By default glibc returns each block above 32 MB to the system, which
then provides new pages, zeroed one by one: a quarter of a step's time on a CPU (NOTES.md). The setting is global and
cannot be read, so this module counts the contexts that need it.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRIM_ABOVE, MAP_ABOVE, MAPS = -1, -3, -4  # of `mallopt`: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX
LARGE = 32 * 2**20  # bytes, the largest value of glibc's dynamic threshold
USUAL = {MAP_ABOVE: LARGE, TRIM_ABOVE: 2 * LARGE, MAPS: 65536}
KEEP = {TRIM_ABOVE: 2**31 - 1, MAPS: 0}

_open = [0]  # contexts of `retain_freed_memory`


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """A context in which the process keeps freed memory; at its end unused memory is returned."""
    _open[0] += 1
    _set(KEEP)
    try:
        yield
    finally:
        _open[0] -= 1
        if not _open[0]:
            _set(USUAL)
            if library := _glibc():
                library.malloc_trim(0)


def _set(options: dict[int, int]) -> None:
    if library := _glibc():
        for name, value in options.items():
            library.mallopt(name, value)


@cache
def _glibc() -> Any:
    """The C library if it is glibc, else None."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
