"""Threads that share a layer's work in large pieces, so that a busy machine delays them as little as an idle one.

PyTorch's operations divide each loop among OpenMP threads and wait at its end, thousands of times a pass; where another
process holds a core, all others wait for the thread that is not scheduled. Here each thread computes whole pieces of a
layer, with one OpenMP thread, and takes the next piece when it is done: a slow thread computes fewer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Piece = TypeVar("Piece")


def for_each(work: Callable[[Piece], object], pieces: Sequence[Piece]) -> None:
    """Calls ``work`` once for each piece, in as many threads as PyTorch may use here (``torch.get_num_threads``).

    The pieces start in order. Gradients are not recorded. An error of ``work`` is raised here when all threads ended.
    """
    threads = torch.get_num_threads()
    helpers = min(threads, len(pieces)) - 1
    queue = iter(pieces)  # threads take from it in turn: `next` of a list's iterator is atomic
    inference = torch.is_inference_mode_enabled()

    def take() -> None:
        with torch.inference_mode() if inference else torch.no_grad():
            for piece in queue:
                work(piece)

    others = [_helpers(os.getpid(), threads - 1).submit(take) for _ in range(helpers)]
    try:
        if others:
            torch.set_num_threads(1)
        take()
    finally:
        errors = [other.exception() for other in others]
        torch.set_num_threads(threads)
    for error in errors:
        if error is not None:
            raise error


@cache
def _helpers(_process: int, count: int) -> ThreadPoolExecutor:
    """The threads beside the calling one; a forked process has none of its parent's."""
    return ThreadPoolExecutor(count, "verydeep", initializer=_use_one_core)


def _use_one_core() -> None:
    torch.get_num_threads()  # the first call in a thread takes over the process's number, whatever it was set to
    torch.set_num_threads(1)


def shares(count: int, parts: int) -> list[slice]:
    """At most so many slices of nearly equal size that make up a range."""
    size = -(-count // parts)
    return [slice(first, min(count, first + size)) for first in range(0, count, size)]
