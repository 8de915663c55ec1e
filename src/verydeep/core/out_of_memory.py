"""Work on a batch where memory may run out: it is done again on halves, which give the same result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
# Of messages: the CPU's allocator and MPS's, cuBLAS and cuDNN, and C++. Other errors of PyTorch are RuntimeErrors too.
MESSAGES = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
_log = logging.getLogger(__name__).warning


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error of a device or of Python says that memory ran out."""
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in MESSAGES)


def within_memory(work: Callable[[int], T], size: int, least: int = 1) -> tuple[T, int]:
    """``work(size)``, or of the largest halving of ``size`` for which memory suffices, with a warning.

    Nothing is freed in between: PyTorch's allocators give back what they keep before they raise.

    Args:
        work: takes the number of images at once; it is called again from the start, with half as many.
        least: the smallest size that is tried, for which the error is raised.

    Returns:
        The result, and the size for which memory sufficed.
    """
    tried = size
    while True:
        try:
            result = work(tried)
            break
        except (RuntimeError, MemoryError) as fault:
            if tried <= least or not is_out_of_memory(fault):
                raise
        tried = (tried + 1) // 2  # here the traceback is gone, which held what the failed pass had computed
    if tried < size:
        _log(
            f"memory ran out with {size} images at once: going on with {tried}, which changes results by rounding only"
        )
    return result, tried
